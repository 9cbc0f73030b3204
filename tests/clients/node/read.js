// imapflow: prints the first message.
import { readFileSync } from 'node:fs'
import { ImapFlow } from 'imapflow'

const { MF_PORT, MF_SECURITY, MF_LOGIN, MF_PASSWORD, MF_CA_FILE } = process.env
const client = new ImapFlow({
  host: 'localhost',
  port: Number(MF_PORT),
  secure: MF_SECURITY === 'tls',
  doSTARTTLS: MF_SECURITY === 'starttls',
  tls: { ca: readFileSync(MF_CA_FILE) },
  auth: { user: MF_LOGIN, pass: MF_PASSWORD },
  logger: false
})
await client.connect()
const lock = await client.getMailboxLock('INBOX')
const { source } = await client.fetchOne('1', { source: true })
process.stdout.write(source)
lock.release()
await client.logout()
