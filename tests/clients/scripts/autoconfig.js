// Run by Marionette within Thunderbird: reads a configuration as its account set-up does, from the page or from a text.
const [address, text, domain, done] = arguments;
const { FetchConfig } = ChromeUtils.importESModule("resource:///modules/accountcreation/FetchConfig.sys.mjs");
const { readFromXML } = ChromeUtils.importESModule("resource:///modules/accountcreation/readFromXML.sys.mjs");
const { JXON } = ChromeUtils.importESModule("resource:///modules/JXON.sys.mjs");
const SOCKET_TYPES = { 0: "plain", 2: "starttls", 3: "tls" }; // nsMsgSocketType

async function read() {
  if (address) {
    Services.prefs.setStringPref("mailnews.auto_config_url", address);
    return FetchConfig.fromDB(domain, new AbortController().signal);
  }
  return readFromXML(JXON.build(new DOMParser().parseFromString(text, "text/xml")), "disk");
}

const plain = server => ({
  type: server.type,
  hostname: server.hostname,
  port: server.port,
  security: SOCKET_TYPES[server.socketType],
  password: server.auth === Ci.nsMsgAuthMethod.passwordCleartext,
  username: server.username,
});

read().then(
  config => done([config.incoming, ...config.incomingAlternatives, config.outgoing].map(plain)),
  error => done({ error: `${error} ${error.stack}` }));
