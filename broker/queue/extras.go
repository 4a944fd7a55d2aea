package queue

import "encoding/binary"

func (m *Message) hasExtras() bool {
	return len(m.Headers) > 0 || m.DedupID != "" || m.CorrelationID != "" || m.ReplyTo != "" || m.ContentType != ""
}

// encodeExtras writes what a message has beside its body: the number of headers, names and values, and
// the four ids, each string after its length. It ends where the body begins.
func encodeExtras(b []byte, m *Message) []byte {
	b = binary.AppendUvarint(b, uint64(len(m.Headers)))
	for _, h := range m.Headers {
		b = appendString(b, h.Key)
		b = binary.AppendUvarint(b, uint64(len(h.Value)))
		b = append(b, h.Value...)
	}
	b = appendString(b, m.DedupID)
	b = appendString(b, m.CorrelationID)
	b = appendString(b, m.ReplyTo)
	return appendString(b, m.ContentType)
}

// decodeExtras reads what encodeExtras wrote into m, and returns the body that follows. The headers'
// values share memory with b.
func decodeExtras(b []byte, m *Message) (body []byte) {
	d := decoder{b: b}
	if n := d.count(len(b)); n > 0 {
		m.Headers = make([]Header, n)
		for i := range m.Headers {
			m.Headers[i] = Header{Key: d.string(), Value: d.bytes()}
		}
	}
	m.DedupID, m.CorrelationID, m.ReplyTo, m.ContentType = d.string(), d.string(), d.string(), d.string()
	return d.b
}

// extrasBodySize is the length of the body behind extras.
func extrasBodySize(b []byte) int {
	d := decoder{b: b}
	for range 2*d.count(len(b)) + 4 {
		d.bytes()
	}
	return len(d.b)
}
