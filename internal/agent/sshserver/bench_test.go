package sshserver

import (
	"crypto/ed25519"
	"io"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"
)

// BenchmarkCipher carries bytes from server to client in one process, so it costs twice what either does. What counts is
// the order of the figures in an emulated guest: build it with go test -c and run it there.
func BenchmarkCipher(b *testing.B) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		b.Fatal(err)
	}
	for _, cipher := range []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR} {
		b.Run(cipher, func(b *testing.B) { benchmarkCipher(b, signer, cipher) })
	}
}

func benchmarkCipher(b *testing.B, signer ssh.Signer, cipher string) {
	server := &ssh.ServerConfig{NoClientAuth: true}
	server.AddHostKey(signer)
	client := &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())}
	client.Ciphers = []string{cipher}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	block := make([]byte, 32<<10)
	go func() {
		far, err := listener.Accept()
		if err != nil {
			return
		}
		_, channels, requests, err := ssh.NewServerConn(far, server)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for c := range channels {
			ch, requests, err := c.Accept()
			if err != nil {
				return
			}
			go ssh.DiscardRequests(requests)
			for err == nil {
				_, err = ch.Write(block)
			}
		}
	}()
	conn, err := ssh.Dial("tcp", listener.Addr().String(), client)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ch, _, err := conn.OpenChannel("bench", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := io.ReadFull(ch, block); err != nil {
			b.Fatal(err)
		}
	}
}
