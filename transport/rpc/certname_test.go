package rpc

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"strings"
	"testing"
)

// subjectOf returns a subject as it is written into a certificate.
func subjectOf(t *testing.T, sets ...pkix.RelativeDistinguishedNameSET) []byte {
	t.Helper()
	raw, err := asn1.Marshal(pkix.RDNSequence(sets))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSubjectsThatDifferHaveDifferentNames(t *testing.T) {
	cn, o, ou, own := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{2, 5, 4, 11}, asn1.ObjectIdentifier{1, 3, 9999, 1}
	at := func(id asn1.ObjectIdentifier, v any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: id, Value: v}
	}
	set := func(a ...pkix.AttributeTypeAndValue) pkix.RelativeDistinguishedNameSET { return a }
	for _, c := range []struct {
		subject []byte
		name    string // "" where it is refused
		why     string
	}{
		{subject: subjectOf(t, set(at(o, "Works")), set(at(cn, "alice"))), name: "CN=alice,O=Works"},
		{subject: subjectOf(t, set(at(cn, "alice")), set(at(o, "Works"))), name: "O=Works,CN=alice"},
		{subject: subjectOf(t, set(at(ou, "a")), set(at(ou, "b")), set(at(cn, "alice"))), name: "CN=alice,OU=b,OU=a"},
		{subject: subjectOf(t, set(at(ou, "b")), set(at(ou, "a")), set(at(cn, "alice"))), name: "CN=alice,OU=a,OU=b"},
		{subject: subjectOf(t, set(at(ou, "x"), at(cn, "alice"))), name: "OU=x+CN=alice"},
		{subject: subjectOf(t, set(at(cn, "alice,O=Works"))), name: `CN=alice\,O=Works`},
		{subject: subjectOf(t, set(at(cn, "alice+OU=x"))), name: `CN=alice\+OU=x`},
		{subject: subjectOf(t, set(at(cn, " alice"))), name: `CN=\ alice`},
		{subject: subjectOf(t, set(at(cn, "alice")), set(at(own, "x"))), name: "1.3.9999.1=#130178,CN=alice"},
		{subject: subjectOf(t, set(at(cn, "mallory")), set(at(cn, "alice"))), why: "2 common names"},
		{subject: subjectOf(t, set(at(cn, "mallory"), at(cn, "alice"))), why: "2 common names"},
		{subject: subjectOf(t, set(at(cn, 7))), why: "no text"},
		{subject: subjectOf(t, set(at(cn, "alice\nuid 0"))), why: "can not be seen"},
		{subject: subjectOf(t, set(at(cn, "al\x00ice"))), why: "can not be seen"},
		{subject: subjectOf(t, set(at(cn, "al\u202eice"))), why: "can not be seen"},
		{subject: subjectOf(t, set(at(o, "alice\x1b[2J"))), why: "can not be seen"},
		{subject: subjectOf(t), why: "neither a SPIFFE ID nor a subject"},
		{subject: []byte{0x30, 0x05, 1}, why: "subject"},
	} {
		got, err := certificateName(&x509.Certificate{RawSubject: c.subject})
		if c.name != "" && (err != nil || got != c.name) {
			t.Errorf("%q, %v; want %q", got, err, c.name)
		}
		if c.name == "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%q, %v; want an error with %q", got, err, c.why)
		}
	}
}

// A certificate is read from its bytes as a whole, not from what a caller filled in.
func TestForgedSubjectIsReadFromTheCertificate(t *testing.T) {
	ca := newAuthority(t, "ca")
	cn := asn1.ObjectIdentifier{2, 5, 4, 3}
	forged := subjectOf(t, pkix.RelativeDistinguishedNameSET{{Type: cn, Value: "mallory"}}, pkix.RelativeDistinguishedNameSET{{Type: cn, Value: "alice"}})
	c := ca.client(t, func(c *x509.Certificate) { c.RawSubject = forged })
	if c.cert.Subject.String() != "CN=alice" {
		t.Fatalf("this is not the case that is to be tested: %s", c.cert.Subject)
	}
	if name, err := certificateName(c.cert); err == nil {
		t.Errorf("it is called %q", name)
	}
}

func TestSPIFFEIDsAreTheOnlyURIAndWellFormed(t *testing.T) {
	for _, c := range []struct {
		uris []string
		ok   bool
	}{
		{[]string{"spiffe://works/jobs/worker-1_a.b"}, true},
		{[]string{"spiffe://works.example"}, true},
		{[]string{"spiffe://works/a", "spiffe://works/b"}, false},
		{[]string{"https://works/a", "spiffe://works/b"}, false},
		{[]string{"spiffe://works/b", "https://works/a"}, false},
		{[]string{"spiffe:"}, false},
		{[]string{"spiffe:works/a"}, false},
		{[]string{"spiffe:///a"}, false},
		{[]string{"spiffe://works/"}, false},
		{[]string{"spiffe://works//a"}, false},
		{[]string{"spiffe://works/a/"}, false},
		{[]string{"spiffe://works/a/../b"}, false},
		{[]string{"spiffe://works/./b"}, false},
		{[]string{"spiffe://works/%61dmin"}, false},
		{[]string{"spiffe://works/a?x"}, false},
		{[]string{"spiffe://works/a#y"}, false},
		{[]string{"spiffe://user@works/a"}, false},
		{[]string{"spiffe://works:1/a"}, false},
		{[]string{"spiffe://Works/a"}, false},
	} {
		subject := subjectOf(t, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "alice"}})
		cert := &x509.Certificate{RawSubject: subject}
		for _, text := range c.uris {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		name, err := certificateName(cert)
		if (err == nil) != c.ok || c.ok && name != c.uris[0] {
			t.Errorf("%q: %q, %v", c.uris, name, err)
		}
	}
}
