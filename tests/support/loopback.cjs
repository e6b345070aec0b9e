// Preloaded into node servers: they listen on 127.0.0.1 only, at $PORT, and say where in $ADDRESS_FILE.
'use strict'

const fs = require('node:fs')
const net = require('node:net')

const HOST = '127.0.0.1'
const listen = net.Server.prototype.listen

function onLoopback(options) {
  return [{ host: HOST, port: Number(process.env.PORT) }, ...options.filter((each) => typeof each === 'function')]
}

net.Server.prototype.listen = function (...options) {
  this.once('listening', () => {
    const { address, port } = this.address()
    if (process.env.ADDRESS_FILE) fs.writeFileSync(process.env.ADDRESS_FILE, `${address}:${port}\n`)
  })
  return listen.apply(this, onLoopback(options))
}
