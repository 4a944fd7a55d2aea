package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
)

// ReadKeyPair reads a certificate and its key, both PEM. Who checks a configuration and who serves with it call this same
// function, and ReadAuthorities: so that what is checked is what is taken.
func ReadKeyPair(cert, key string) (tls.Certificate, error) {
	certText, err := readPEM(cert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", cert, err)
	}
	keyText, err := readPEM(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", key, err)
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s and %s: %s", cert, key, strings.TrimPrefix(err.Error(), "tls: "))
	}
	if !forServers(pair.Leaf) {
		return tls.Certificate{}, fmt.Errorf("%s: the certificate is not for servers: clients refuse it; its extended key usage must be serverAuth", cert)
	}
	return pair, nil
}

// forServers reports whether a certificate may be that of a server, as its extended key usage says; without any it may be.
func forServers(leaf *x509.Certificate) bool {
	return leaf == nil || len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// ReadAuthorities reads certificates of authorities, and is strict about it: one that is passed over would be missed only
// when its clients are refused. Errors do not name the file.
func ReadAuthorities(path string) ([]*x509.Certificate, error) {
	rest, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("there is a PEM block %.40q in it: there may be certificates only", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of it: %s", len(out)+1, strings.TrimPrefix(err.Error(), "x509: "))
		}
		if !c.IsCA {
			return nil, fmt.Errorf("certificate %d of it, of %.200q, is not of an authority: it can sign no clients", len(out)+1, c.Subject.String())
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no certificate in it: it must be a PEM file with the authorities' certificates")
	}
	return out, nil
}

// readPEM reads a file of bounded size.
func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, explainFile(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, explainFile(err)
	} else if info.IsDir() {
		return nil, errors.New("it is no file")
	}
	text, err := io.ReadAll(io.LimitReader(f, limits.TLSFileBytes+1))
	if err != nil {
		return nil, explainFile(err)
	}
	if len(text) > limits.TLSFileBytes {
		return nil, fmt.Errorf("it has more than %d bytes: name a PEM file", limits.TLSFileBytes)
	}
	return text, nil
}
