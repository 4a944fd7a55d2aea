package rpc

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ipcd/ipcd/internal/limits"
)

// certificateName is what a certificate is called: its SPIFFE ID, else its subject as of RFC 4514. Rights hang on it: so
// subjects that say different things never have one name, and what could be taken for another is refused.
func certificateName(c *x509.Certificate) (string, error) {
	var name string
	var err error
	if slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.Scheme == "spiffe" }) {
		name, err = spiffeID(c.URIs)
	} else {
		name, err = subjectName(c.RawSubject)
	}
	switch {
	case err != nil:
		return "", err
	case name == "":
		return "", errors.New("the certificate has neither a SPIFFE ID nor a subject: nobody could be told by it")
	case len(name) > limits.CertificateNameLength:
		return "", fmt.Errorf("the certificate's name has %d bytes and may have %d", len(name), limits.CertificateNameLength)
	case !utf8.ValidString(name):
		return "", errors.New("the certificate's name is no UTF-8")
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return "", fmt.Errorf("the certificate's name %q has characters that can not be seen: it may have none", name)
	}
	return name, nil
}

// commonName is the attribute that names whose certificate it is (X.520).
var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// subjectName writes a subject with all of its attributes, in their order. x509.Certificate.Subject is not what it
// reads: of attributes that come twice it keeps one, and it knows no order.
func subjectName(raw []byte) (string, error) {
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &subject); err != nil {
		return "", fmt.Errorf("the certificate's subject: %w", err)
	} else if len(rest) > 0 {
		return "", errors.New("the certificate's subject has something behind it")
	}
	names := 0
	for _, set := range subject {
		for _, attribute := range set {
			if _, ok := attribute.Value.(string); !ok && attribute.Type.Equal(commonName) {
				return "", errors.New("the certificate's common name is no text")
			}
			if attribute.Type.Equal(commonName) {
				names++
			}
		}
	}
	if names > 1 {
		return "", fmt.Errorf("the certificate's subject has %d common names: it may have one", names)
	}
	return subject.String(), nil
}

// What SPIFFE IDs are made of.
const (
	domainRunes = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
	pathRunes   = domainRunes + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// spiffeID returns the SPIFFE ID of a certificate (X.509-SVID, 2: it is the only URI), as it stands there: it must be
// written in the one way in which it may be (SPIFFE-ID, 2).
func spiffeID(uris []*url.URL) (string, error) {
	if len(uris) != 1 {
		return "", fmt.Errorf("the certificate has %d URIs, one of them a SPIFFE ID: it may have that one only", len(uris))
	}
	id := uris[0].String()
	wrong := func(why string) (string, error) {
		return "", fmt.Errorf("the certificate's SPIFFE ID %.300q: %s; it must be like spiffe://trust.domain/path", id, why)
	}
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return wrong("it does not begin with spiffe://")
	}
	domain, path, _ := strings.Cut(rest, "/")
	if domain == "" || !only(domain, domainRunes) {
		return wrong("a trust domain has lower-case letters, digits, dots, dashes and underscores only")
	}
	if len(rest) == len(domain) {
		return id, nil // the trust domain itself
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return wrong("its path has an empty part, or one that is . or ..")
		}
		if !only(segment, pathRunes) {
			return wrong("its path has letters, digits, dots, dashes and underscores only")
		}
	}
	return id, nil
}

// only reports whether a text is made of these characters.
func only(text, of string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(of, r) })
}
