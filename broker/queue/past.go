package queue

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Past is what a message went through before it is stored here: it was moved from another queue, or imported.
type Past struct {
	SentAt   int64  // wall time, ns since 1970; 0: it is sent now
	Due      int64  // wall time, ns since 1970, until which it is delayed; over or 0: it is ready
	Expires  int64  // wall time, ns since 1970, at which its TTL ends, or did; 0: never
	Attempts int    // leases that failed, at most limits.MaxAttemptsMax
	Buried   bool   // it stays set aside,
	Why      string // for this reason
}

// Imported is the batch that stores messages as Peek showed them at any time and place. What their past may not be is
// mended (a time of send in the future), cut (attempts, reasons) or an error.
func Imported(now int64, all []Peeked) (Batch, error) {
	b := Batch{Messages: make([]Message, len(all)), Past: make([]Past, len(all))}
	for i := range all {
		m, past, err := all[i].imported(now)
		if err != nil {
			return Batch{}, err.At(i)
		}
		b.Messages[i], b.Past[i] = m, past
	}
	return b, nil
}

func (p *Peeked) imported(now int64) (Message, Past, *reason.Error) {
	m := p.Message
	switch {
	case p.TruncatedFrom != 0:
		return m, Past{}, reason.Invalid("messages", "the body was cut: %d of %d bytes are there; export whole bodies", len(m.Body), p.TruncatedFrom)
	case p.State > Buried:
		return m, Past{}, reason.Invalid("state", "state %d: it must be ready, delayed, leased or buried", p.State)
	case min(p.SentAt, p.Due, p.Expires) < 0:
		return m, Past{}, reason.Invalid("send_time", "a time before 1970: send, due and expire time must be later")
	case p.Attempts < 0:
		return m, Past{}, reason.Invalid("attempts", "%d attempts: they must be 0 to %d", p.Attempts, limits.MaxAttemptsMax)
	case p.Expires != 0 && p.Expires <= p.SentAt:
		return m, Past{}, reason.Invalid("expire_time", "the TTL ends before the message was sent: expire_time must be after send_time")
	}
	past := Past{
		SentAt: min(p.SentAt, now), Expires: p.Expires, Attempts: min(p.Attempts, limits.MaxAttemptsMax),
		Buried: p.State == Buried, Why: cutText(p.BuryReason, limits.ImportReasonLength),
	}
	if past.SentAt == 0 {
		past.SentAt = now
	}
	switch {
	case past.Expires != 0:
		m.TTL = 0 // it says when
		past.SentAt = max(1, min(past.SentAt, past.Expires-1))
	case m.TTL > 0:
		past.Expires = past.SentAt + min(m.TTL, limits.DelayMax+1).Nanoseconds() // one that is too long is refused with the batch
	}
	if p.State == Delayed {
		past.Due = p.Due
	}
	if past.Due == 0 {
		past.Due = m.dueAt(now)
	}
	if !past.Buried {
		past.Why = ""
	}
	return m, past, nil
}

// cutText is text of at most so many bytes, cut between characters.
func cutText(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// checkImported is check for a message that may be a dead letter: its headers as such come on top.
func (m *Message) checkImported(maxSize int) *reason.Error {
	if m.origin() == "" {
		return m.check(maxSize)
	}
	own := *m
	own.Headers = withoutDeadHeaders(m.Headers, 0)
	dead, bytes := 0, 0
	for _, h := range m.Headers {
		if isDeadHeader(h.Key) {
			dead++
			bytes += len(h.Key) + len(h.Value)
		}
	}
	if dead > limits.DeadHeaders || bytes > limits.DeadHeaderBytes {
		return reason.Invalid("headers", "%d headers of a dead letter with %d bytes: a message may have %d, with %d", dead, bytes, limits.DeadHeaders, limits.DeadHeaderBytes)
	}
	return own.check(maxSize)
}

// The past stands behind what else a record says of a message: the time of its send, the attempts doubled and one more
// if it is buried, and then why.

func (p *Past) append(b []byte) []byte {
	b = binary.AppendVarint(b, p.SentAt)
	if !p.Buried {
		return binary.AppendUvarint(b, uint64(p.Attempts)<<1)
	}
	return appendString(binary.AppendUvarint(b, uint64(p.Attempts)<<1|1), p.Why)
}

func (d *decoder) past() *Past {
	p := &Past{SentAt: d.varint()}
	v := d.uvarint()
	if v>>1 > limits.MaxAttemptsMax {
		d.fail(fmt.Errorf("a message with %d attempts", v>>1))
	}
	p.Attempts = int(v >> 1)
	if v&1 != 0 {
		p.Buried, p.Why = true, d.string()
	}
	return p
}

// alike reports whether two pasts, of which each may be missing, are encoded alike.
func (p *Past) alike(o *Past) bool {
	return p == o || p != nil && o != nil && p.SentAt == o.SentAt && p.Attempts == o.Attempts && p.Buried == o.Buried && p.Why == o.Why
}

// remember gives a message that was just stored its past. One that is buried is marked until it is committed.
func (q *Queue) remember(s *slot, p *Past) {
	if p.SentAt != 0 {
		s.sentAt = p.SentAt
	}
	s.attempts = uint16(p.Attempts)
	if p.Buried && q.loading == nil {
		s.flags |= flagBury
		if p.Why != "" {
			s.left = q.reasons.hold(p.Why)
		}
	}
}

// forgetBury takes the mark off a message that is to be buried when it is committed, and returns why.
func (q *Queue) forgetBury(s *slot) (why string) {
	if s.left != 0 {
		why = q.reasons.all[s.left].text
		q.reasons.release(s.left)
		s.left = 0
	}
	s.flags &^= flagBury
	return why
}
