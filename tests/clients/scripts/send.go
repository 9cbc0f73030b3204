// Go's own net/smtp: sends what comes on standard input.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/smtp"
	"os"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	address, security, login := "localhost:"+os.Getenv("MF_PORT"), os.Getenv("MF_SECURITY"), os.Getenv("MF_LOGIN")
	pem, err := os.ReadFile(os.Getenv("MF_CA_FILE"))
	must(err)
	known := x509.NewCertPool()
	known.AppendCertsFromPEM(pem)
	trust := &tls.Config{RootCAs: known, ServerName: "localhost"}
	var connection net.Conn
	if security == "tls" {
		connection, err = tls.Dial("tcp", address, trust)
	} else {
		connection, err = net.Dial("tcp", address)
	}
	must(err)
	c, err := smtp.NewClient(connection, "localhost")
	must(err)
	if security == "starttls" {
		must(c.StartTLS(trust))
	}
	must(c.Auth(smtp.PlainAuth("", login, os.Getenv("MF_PASSWORD"), "localhost")))
	must(c.Mail(login))
	must(c.Rcpt(login))
	w, err := c.Data()
	must(err)
	_, err = io.Copy(w, os.Stdin)
	must(err)
	must(w.Close())
	must(c.Quit())
}
