"""The chains and assets that are configured, and exact money on them: integers only."""

from chains.address import address_of, checksum_address
from chains.registry import Asset, Chain, PinnedBlock, Registry

__all__ = ["Asset", "Chain", "PinnedBlock", "Registry", "address_of", "checksum_address"]
