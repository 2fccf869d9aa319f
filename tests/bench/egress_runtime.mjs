// sandbox-runtime's library, warm: runs a command in its sandbox for each line on stdin that starts with "run ", sends the command's lines back as
// they come ("line TEXT"), ends its stdin at "end", and says "status N" when it has ended. argv: the library's directory, a settings file.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const [library, settings] = process.argv.slice(2)
const { SandboxManager } = await import(`${library}/dist/index.js`)
await SandboxManager.initialize(JSON.parse(readFileSync(settings, 'utf8')))
console.log('ready')

let child
for await (const asked of createInterface({ input: process.stdin })) {
  if (asked === 'end') {
    child.stdin.end()
  } else if (asked.startsWith('run ')) {
    const wrapped = await SandboxManager.wrapWithSandbox(asked.slice(4))
    child = spawn(wrapped, { shell: true, stdio: ['pipe', 'pipe', 'inherit'] })
    createInterface({ input: child.stdout }).on('line', line => console.log(`line ${line}`))
    child.on('close', status => console.log(`status ${status}`))
  }
}
await SandboxManager.reset()
process.exit(0)
