"""The chains and assets that are configured, and exact money on them: integers only."""

from chains.address import checksum_address
from chains.registry import Asset, Chain, PinnedBlock, Registry

__all__ = ["Asset", "Chain", "PinnedBlock", "Registry", "checksum_address"]
