// Compiles every contract of this folder into build/<Contract>.json: {abi, bytecode, runtime}.
const fs = require("node:fs");
const path = require("node:path");
const solc = require("solc");

const names = fs.readdirSync(__dirname).filter((name) => name.endsWith(".sol"));
const sources = Object.fromEntries(
  names.map((name) => [name, { content: fs.readFileSync(path.join(__dirname, name), "utf8") }]),
);
const outputSelection = { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } };
const input = { language: "Solidity", sources, settings: { optimizer: { enabled: true }, outputSelection } };
const output = JSON.parse(solc.compile(JSON.stringify(input)));

// A warning is an error here: a contract with one is not worth keeping.
for (const problem of output.errors ?? []) console.error(problem.formattedMessage);
if (output.errors?.length) process.exit(1);

const build = path.join(__dirname, "build");
fs.mkdirSync(build, { recursive: true });
for (const contracts of Object.values(output.contracts)) {
  for (const [name, { abi, evm }] of Object.entries(contracts)) {
    const artifact = { abi, bytecode: `0x${evm.bytecode.object}`, runtime: `0x${evm.deployedBytecode.object}` };
    fs.writeFileSync(path.join(build, `${name}.json`), JSON.stringify(artifact));
  }
}
