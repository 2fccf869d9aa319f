// fetch() of argv[2] with the proxy variables. Node.js reads them itself from 22.21 and 24 on (NODE_USE_ENV_PROXY); before, its users set a
// dispatcher that opens a tunnel, which is done here from the built-in one, without any package.
import http from 'node:http'
import tls from 'node:tls'

const [url] = process.argv.slice(2)
const proxy = new URL(process.env.HTTPS_PROXY)

async function dispatcher() {
  const key = Symbol.for('undici.globalDispatcher.1')
  await fetch('data:,').catch(() => {}) // the built-in client is loaded at first use
  const Agent = globalThis[key].constructor
  return new Agent({
    connect({ hostname, port, protocol }, done) {
      const target = `${hostname}:${port || (protocol === 'https:' ? 443 : 80)}`
      const headers = { host: target } // else Node.js names the proxy, which RFC 9110 (9.3.6) does not allow and ours refuses
      const request = http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: target, headers })
      request.once('error', done)
      request.once('connect', (answer, socket) => {
        if (answer.statusCode !== 200) return done(new Error(`the proxy answered ${answer.statusCode}`))
        if (protocol !== 'https:') return done(null, socket)
        const secure = tls.connect({ socket, servername: hostname, ALPNProtocols: ['http/1.1'] })
        secure.once('error', done)
        secure.once('secureConnect', () => done(null, secure))
      })
      request.end()
    },
  })
}

const [major, minor] = process.versions.node.split('.').map(Number)
const reads = major >= 24 || (major === 22 && minor >= 21)
const options = reads ? {} : { dispatcher: await dispatcher() }
const answer = await fetch(url, options)
process.stdout.write(await answer.text())
const body = 'x'.repeat(100_000)
const echo = await fetch(new URL('/echo', url), { ...options, method: 'POST', body })
if ((await echo.text()) !== body) throw new Error('the body came back changed')
process.exit(0)
