// nodemailer: sends what comes on standard input, as it is.
import { readFileSync } from 'node:fs'
import { createTransport } from 'nodemailer'

const { MF_PORT, MF_SECURITY, MF_LOGIN, MF_PASSWORD, MF_CA_FILE } = process.env
const transport = createTransport({
  host: 'localhost',
  port: Number(MF_PORT),
  secure: MF_SECURITY === 'tls',
  requireTLS: MF_SECURITY === 'starttls',
  ignoreTLS: MF_SECURITY === 'plain',
  tls: { ca: readFileSync(MF_CA_FILE) },
  auth: { user: MF_LOGIN, pass: MF_PASSWORD }
})
await transport.sendMail({ envelope: { from: MF_LOGIN, to: MF_LOGIN }, raw: readFileSync(0) })
