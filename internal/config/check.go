package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

// segmentsMin is how many segments the journal needs at least.
const segmentsMin = 6

// segmentUnit is what the size of a segment must be a multiple of: a page of the file system.
const segmentUnit = 4096

// Check says what is wrong with the configuration, if anything, and makes its paths absolute. It reads the files of
// TLS. Errors are *Error, with all that is wrong.
func (c *Config) Check() error {
	var found Error
	problem := func(key, format string, args ...any) {
		p := Problem{Key: key, Message: fmt.Sprintf(format, args...)}
		p.File, p.Line = c.where(key)
		found.Problems = append(found.Problems, p)
	}
	c.checkRanges(problem)
	c.checkPlaces(problem)
	c.checkListen(problem)
	c.checkTLS(problem)
	return found.orNil()
}

// where returns the place of a key in the files, if its value is the one that stands there.
func (c *Config) where(path string) (file string, line int) {
	o, there := c.origins[path]
	if !there {
		return "", 0
	}
	if k := find(Keys, path); k != nil && k.Kind != Map && o.value != nil && k.put == nil {
		if v, _ := k.value(&place{config: c}); v != o.value {
			return "", 0 // the command line says otherwise
		}
	}
	return o.file, o.line
}

// checkRanges holds single values against what is allowed: those of flags were not read by Load.
func (c *Config) checkRanges(problem func(key, format string, args ...any)) {
	for i := range Keys {
		k := &Keys[i]
		if k.Kind != Number && k.Kind != Size && k.Kind != Duration && k.Kind != Word {
			continue
		}
		if wrong := k.wrong(k.value(&place{config: c})); wrong != "" {
			problem(k.Name, "%s", wrong)
		}
	}
	if c.MaxDisk != 0 && c.SegmentSize <= limits.SegmentBytes && c.MaxDisk < segmentsMin*c.SegmentSize {
		problem("max_disk", "%s: it must be at least %s, which is %d times segment_size", sizeText(c.MaxDisk), sizeText(segmentsMin*c.SegmentSize), segmentsMin)
	}
	if c.SegmentSize%segmentUnit != 0 {
		problem("segment_size", "%d: it must be a multiple of %s", c.SegmentSize, sizeText(segmentUnit))
	}
}

// socketPathMax is how many bytes the path of a socket may have: sun_path of unix(7), less its end.
const socketPathMax = 107

func (c *Config) checkPlaces(problem func(key, format string, args ...any)) {
	_, named := c.origins["socket"]
	if c.Socket == "" && named {
		problem("socket", "it is empty: name a path, or leave the key out")
	} else if c.Socket == "" {
		problem("socket", "no place for the socket: XDG_RUNTIME_DIR is not set to an absolute path; set it, or name a path with --socket (clients then need IPCD_ADDRESS)")
	}
	if _, named := c.origins["state_dir"]; c.StateDir == "" && named {
		problem("state_dir", "it is empty: name a directory, or leave the key out")
	} else if c.StateDir == "" {
		problem("state_dir", "no place for the state: neither XDG_STATE_HOME nor HOME is set to an absolute path; set one, or name a directory with --state-dir")
	}
	if c.AttachSocket == "" && c.Socket != "" {
		c.AttachSocket = filepath.Join(filepath.Dir(c.Socket), attachName)
	}
	for key, path := range map[string]*string{"socket": &c.Socket, "attach_socket": &c.AttachSocket, "state_dir": &c.StateDir} {
		if *path == "" {
			continue
		}
		// A path on the command line begins where that was typed; a file has no such place.
		if o, there := c.origins[key]; there && o.value == *path && !filepath.IsAbs(*path) {
			problem(key, "%s: the path must be absolute", quote(*path))
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			problem(key, "path %s: %v", quote(*path), err)
			continue
		}
		if o, there := c.origins[key]; there && o.value == *path {
			o.value = absolute
			c.origins[key] = o
		}
		*path = absolute
		if key != "state_dir" && len(absolute) > socketPathMax {
			problem(key, "%s has %d bytes: the path of a socket may have %d (unix(7))", quote(absolute), len(absolute), socketPathMax)
		}
	}
	if c.Socket != "" && c.AttachSocket == c.Socket {
		problem("attach_socket", "attach_socket and socket are both %s: name another with --attach-socket", quote(c.Socket))
	}
}

func (c *Config) checkListen(problem func(key, format string, args ...any)) {
	if c.Listen != "" {
		host, _, err := splitAddress(c.Listen)
		ip := net.ParseIP(host)
		outside := host == "" || ip != nil && !ip.IsLoopback() // other names are looked up when it listens
		switch {
		case err != nil:
			problem("listen", "%s: %v; write host:port, such as 127.0.0.1:7475 or [::1]:7475", quote(c.Listen), err)
		case c.TLS.On():
		case !c.Insecure:
			problem("listen", "%s: TCP needs tls, or on loopback insecure (--insecure), for every process of the host", quote(c.Listen))
		case outside:
			problem("listen", "%s is no loopback address: without tls it must be one, such as 127.0.0.1:7475 or [::1]:7475", quote(c.Listen))
		}
		if c.TLS.On() && c.Insecure {
			problem("insecure", "there is tls, so TCP can not be insecure: leave one of them out")
		}
	}
	if path, isUnix := strings.CutPrefix(c.HTTP, "unix:"); isUnix {
		if !filepath.IsAbs(path) {
			problem("http", "%s: the path after unix: must be absolute", quote(c.HTTP))
		}
		if len(path) > socketPathMax {
			problem("http", "%s has %d bytes: the path of a socket may have %d (unix(7))", quote(path), len(path), socketPathMax)
		}
		if clean := filepath.Clean(path); clean == c.Socket || clean == c.AttachSocket {
			problem("http", "%s is the path of socket or attach_socket too: name another", quote(c.HTTP))
		}
	} else if c.HTTP != "" {
		if _, _, err := splitAddress(c.HTTP); err != nil {
			problem("http", "%s: %v; write host:port, such as 127.0.0.1:9475, or unix:/path", quote(c.HTTP), err)
		}
	}
}

// splitAddress takes an address apart. The port is a number, or the name of a service.
func splitAddress(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	var malformed *net.AddrError
	if errors.As(err, &malformed) {
		err = errors.New(malformed.Err)
	}
	if err != nil {
		return "", "", err
	}
	if n, err := strconv.Atoi(port); err == nil {
		if n < 0 || n > 65535 {
			return "", "", fmt.Errorf("port %d: it must be 0 to 65535", n)
		}
		return host, port, nil
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
		return "", "", fmt.Errorf("port %s: it must be 0 to 65535", quote(port))
	}
	return host, port, nil
}

// checkTLS reads the files, and says whether they fit each other.
func (c *Config) checkTLS(problem func(key, format string, args ...any)) {
	t := &c.TLS
	if t.Cert == "" && t.Key == "" && t.ClientCA == "" && len(t.Users) == 0 {
		return
	}
	good := map[string]bool{}
	for _, f := range []struct{ key, path string }{{"tls.cert", t.Cert}, {"tls.key", t.Key}, {"tls.client_ca", t.ClientCA}} {
		_, given := c.origins[f.key]
		switch {
		case f.path == "" && !given:
			problem("tls", "%s is missing: TLS needs cert, key and client_ca", f.key)
		case !filepath.IsAbs(f.path):
			problem(f.key, "%s: the path must be absolute", quote(f.path))
		default:
			if _, err := readPEM(f.path); err != nil {
				problem(f.key, "%s: %v", f.path, err)
				continue
			}
			good[f.key] = true
		}
	}
	if good["tls.client_ca"] {
		if _, err := ReadAuthorities(t.ClientCA); err != nil {
			problem("tls.client_ca", "%s: %v", t.ClientCA, err)
		}
	}
	if good["tls.cert"] && good["tls.key"] {
		pair, err := ReadKeyPair(t.Cert, t.Key)
		if err != nil {
			problem("tls.cert", "%v", err)
			return
		}
		c.warnOfTime(pair.Leaf)
	}
}

// warnOfTime warns of a certificate that clients do not accept now. It is no mistake: a clock may be wrong, and a daemon
// that does not start helps nobody.
func (c *Config) warnOfTime(leaf *x509.Certificate) {
	now, what := time.Now(), ""
	switch {
	case leaf == nil:
	case now.After(leaf.NotAfter):
		what = "expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(leaf.NotBefore):
		what = "is not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339)
	}
	if what != "" {
		p := Problem{Key: "tls.cert", Message: c.TLS.Cert + ": the certificate " + what + ": clients refuse it"}
		p.File, p.Line = c.where(p.Key)
		c.Warnings = append(c.Warnings, p.String())
	}
}
