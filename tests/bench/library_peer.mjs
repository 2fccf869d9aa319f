// sandbox-runtime's library, warm: "wrapWithSandbox" and a spawn of what it gives, for each line on stdin; answers seconds.
// argv: the library's directory, a settings file, the command.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const [library, settings, command] = process.argv.slice(2)
const { SandboxManager } = await import(`${library}/dist/index.js`)
await SandboxManager.initialize(JSON.parse(readFileSync(settings, 'utf8')))

async function run() {
  const began = performance.now()
  const wrapped = await SandboxManager.wrapWithSandbox(command)
  const status = await new Promise((resolve, reject) => {
    const child = spawn(wrapped, { shell: true, stdio: 'ignore' })
    child.on('error', reject)
    child.on('exit', code => resolve(code))
  })
  if (status !== 0) throw new Error(`ended with ${status}`)
  return (performance.now() - began) / 1000
}

for await (const _ of createInterface({ input: process.stdin })) console.log(await run())
await SandboxManager.reset()
process.exit(0)
