// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

interface IToken {
    function transfer(address to, uint256 value) external returns (bool);
}

/// One transaction that moves money several times, or not at all. It pays from its own balance: give it
/// tokens first. The payer in the log is then this contract and not the sender of the transaction, as
/// with exchanges and Safes.
contract Batch {
    function pay(IToken token, address[] calldata to, uint256[] calldata values) public {
        require(to.length == values.length, "as many recipients as values");
        for (uint256 i = 0; i < to.length; i++) {
            require(token.transfer(to[i], values[i]), "transfer refused");
        }
    }

    /// Does all of `pay` and then undoes it: a mined transaction with status 0 and no logs.
    function payAndRevert(IToken token, address[] calldata to, uint256[] calldata values) external {
        pay(token, to, values);
        revert("undone on purpose");
    }
}

/// Emits a log with any topics and any data: what a fake token does. Its code can be put at any address.
contract Emitter {
    function emitLog(bytes32[] calldata topics, bytes calldata data) external {
        require(topics.length <= 4, "a log has at most 4 topics");
        bytes memory copy = data;
        // Solidity has no way to emit a log with a number of topics known only at run time.
        assembly ("memory-safe") {
            let start := add(copy, 32)
            let size := mload(copy)
            let first := topics.offset
            switch topics.length
            case 0 { log0(start, size) }
            case 1 { log1(start, size, calldataload(first)) }
            case 2 { log2(start, size, calldataload(first), calldataload(add(first, 32))) }
            case 3 {
                log3(start, size, calldataload(first), calldataload(add(first, 32)), calldataload(add(first, 64)))
            }
            default {
                log4(
                    start,
                    size,
                    calldataload(first),
                    calldataload(add(first, 32)),
                    calldataload(add(first, 64)),
                    calldataload(add(first, 96))
                )
            }
        }
    }
}
