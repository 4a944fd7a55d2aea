package attach

import (
	"strings"
	"unicode/utf8"

	"github.com/ipcd/ipcd/internal/reason"
)

// ErrorReply says why a request was refused.
type ErrorReply struct {
	Status uint32        // the errno of Linux that a C programmer would expect
	Reason reason.Reason // "" where there is none
	Text   string        // for people: what was wrong, what is allowed, what to do
}

const (
	errorBytes  = 48
	reasonBytes = 32
	textBytes   = 1024
)

// errnos are the numbers of Linux for the names in package reason, on all machines that ipcd is built
// for, and of EPROTO.
var errnos = map[string]uint32{
	"ENOENT": 2, "EIO": 5, "E2BIG": 7, "EAGAIN": 11, "EACCES": 13, "EEXIST": 17, "EINVAL": 22, "EMFILE": 24, "ENOSPC": 28,
	"EPIPE": 32, "ENOSYS": 38, "ELOOP": 40, "EIDRM": 43, "EPROTO": 71, "EBADMSG": 74, "EMSGSIZE": 90, "ECONNRESET": 104,
	"ESHUTDOWN": 108, "ETIMEDOUT": 110, "ECONNREFUSED": 111, "ESTALE": 116, "EDQUOT": 122, "ECANCELED": 125,
}

// ErrorOf returns e as a reply, with the errno of its reason. Text that is too long is cut.
func ErrorOf(e *reason.Error) ErrorReply {
	return errorReply(e.Reason.Lookup().Errno, e.Reason, e.Error())
}

// ErrorOfProtocol returns the reply to a packet that is not as the protocol says.
func ErrorOfProtocol(e ProtocolError) ErrorReply {
	return errorReply("EPROTO", reason.InvalidArgument, string(e))
}

func errorReply(errno string, r reason.Reason, text string) ErrorReply {
	text = strings.ToValidUTF8(text, "?")
	for len(text) > textBytes {
		_, last := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-last]
	}
	return ErrorReply{Status: errnos[errno], Reason: r, Text: text}
}

// Err returns the reply as an error of package reason.
func (p ErrorReply) Err() *reason.Error {
	r := p.Reason
	if r == "" {
		r = reason.Internal
	}
	return reason.New(r, "%s", p.Text)
}

func (ErrorReply) Kind() Kind  { return KindError }
func (ErrorReply) Files() int  { return 0 }
func (p ErrorReply) size() int { return errorBytes + len(p.Text) }
func (ErrorReply) reply()      {}

func (p ErrorReply) check() error {
	switch {
	case len(p.Reason) > reasonBytes || strings.ContainsRune(string(p.Reason), 0):
		return malformed("reason %q; it has at most %d bytes and no NUL", p.Reason, reasonBytes)
	case len(p.Text) > textBytes:
		return malformed("a text of %d bytes; it may have %d", len(p.Text), textBytes)
	case !utf8.ValidString(p.Text) || !utf8.ValidString(string(p.Reason)):
		return malformed("text that is no UTF-8")
	}
	return nil
}

func (p ErrorReply) put(w wire) {
	w.setU32(8, p.Status)
	copy(w[16:], p.Reason)
	copy(w[errorBytes:], p.Text)
}

func getError(w wire) (p ErrorReply, err error) {
	if len(w) < errorBytes {
		return p, malformed("%d bytes; it has at least %d", len(w), errorBytes)
	}
	if err := w.reserved(12, 4); err != nil {
		return p, err
	}
	r, err := w.text(16, reasonBytes)
	return ErrorReply{Status: w.u32(8), Reason: reason.Reason(r), Text: string(w[errorBytes:])}, err
}
