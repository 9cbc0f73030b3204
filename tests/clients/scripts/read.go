// emersion's go-imap: prints the first message.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"os"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	address, security := "localhost:"+os.Getenv("MF_PORT"), os.Getenv("MF_SECURITY")
	pem, err := os.ReadFile(os.Getenv("MF_CA_FILE"))
	must(err)
	known := x509.NewCertPool()
	known.AppendCertsFromPEM(pem)
	trust := &tls.Config{RootCAs: known, ServerName: "localhost"}
	var c *client.Client
	if security == "tls" {
		c, err = client.DialTLS(address, trust)
	} else {
		c, err = client.Dial(address)
	}
	must(err)
	if security == "starttls" {
		must(c.StartTLS(trust))
	}
	must(c.Login(os.Getenv("MF_LOGIN"), os.Getenv("MF_PASSWORD")))
	_, err = c.Select("INBOX", true)
	must(err)
	first := new(imap.SeqSet)
	first.AddNum(1)
	section := &imap.BodySectionName{Peek: true}
	messages := make(chan *imap.Message, 1)
	must(c.Fetch(first, []imap.FetchItem{section.FetchItem()}, messages))
	_, err = io.Copy(os.Stdout, (<-messages).GetBody(section))
	must(err)
	must(c.Logout())
}
