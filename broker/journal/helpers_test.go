package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/ipcd/ipcd/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dir = "state/journal"

var background = context.Background()

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// small are options for a simulation: small segments, no goroutines.
func small(fs vfs.FS) Options {
	return Options{FS: fs, Dir: dir, SegmentBytes: SegmentBytesMin, Reserve: 2, Identity: [16]byte{1, 2, 3}, Inline: true}
}

// content is what a test's frame holds: all of it follows from its key.
type content struct {
	key   uint64
	sizes []int
}

func makeContent(rng *rand.Rand, key uint64, most int) content {
	c := content{key: key}
	for range rng.IntN(4) {
		c.sizes = append(c.sizes, rng.IntN(most))
	}
	return c
}

func (c content) payload(i int) []byte {
	b := make([]byte, c.sizes[i])
	rng := random(c.key<<8 | uint64(i))
	for k := range b {
		b[k] = byte(rng.Uint32())
	}
	return b
}

func (c content) meta() []byte {
	b := binary.AppendUvarint(nil, c.key)
	for _, n := range c.sizes {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func (c content) put(f *Frame) {
	f.Reset()
	f.Meta = append(f.Meta, c.meta()...)
	for i := range c.sizes {
		p := c.payload(i)
		f.AddPayload(p[:len(p)/3], p[len(p)/3:])
	}
}

func decodeContent(meta []byte) (c content, err error) {
	var fields []uint64
	for len(meta) > 0 {
		v, n := binary.Uvarint(meta)
		if n <= 0 {
			return c, errors.New("meta is not what was appended")
		}
		fields, meta = append(fields, v), meta[n:]
	}
	if len(fields) == 0 {
		return c, errors.New("meta is empty")
	}
	c.key = fields[0]
	for _, v := range fields[1:] {
		c.sizes = append(c.sizes, int(v))
	}
	return c, nil
}

// stored is a frame that is in a journal, or was found there.
type stored struct {
	content
	number Number
	at     []Position
}

func (s *stored) place(p Place) {
	for _, n := range s.sizes {
		s.at = append(s.at, p.Next(n))
	}
}

func app(j *Journal, c content) stored {
	var f Frame
	c.put(&f)
	n, p := j.Append(&f)
	s := stored{content: c, number: n}
	s.place(p)
	return s
}

// collect makes a replay function that fills a list.
func collect(list *[]stored) func(Entry) error {
	return func(e Entry) error {
		c, err := decodeContent(e.Meta)
		if err != nil {
			return fmt.Errorf("frame %d: %w", e.Number, err)
		}
		s := stored{content: c, number: e.Number}
		s.place(e.Payloads)
		*list = append(*list, s)
		return nil
	}
}

type payloadReader interface {
	ReadPayloads(at []Position, out func(i int, payload []byte)) error
}

// readBack checks the payloads of frames.
func readBack(j payloadReader, list []stored) error {
	var at []Position
	var want [][]byte
	for _, s := range list {
		for i := range s.sizes {
			at, want = append(at, s.at[i]), append(want, s.payload(i))
		}
	}
	seen := 0
	var wrong error
	err := j.ReadPayloads(at, func(i int, payload []byte) {
		seen++
		if !bytes.Equal(payload, want[i]) {
			wrong = fmt.Errorf("payload %d at %x has %d bytes that were not appended, want %d", i, at[i], len(payload), len(want[i]))
		}
	})
	if err == nil && wrong == nil && seen != len(at) {
		wrong = fmt.Errorf("%d of %d payloads came", seen, len(at))
	}
	return errors.Join(err, wrong)
}

// sameFrames says how got differs from want.
func sameFrames(got, want []stored) error {
	for i := range min(len(got), len(want)) {
		g, w := got[i], want[i]
		if g.number != w.number || g.key != w.key || fmt.Sprint(g.sizes, g.at) != fmt.Sprint(w.sizes, w.at) {
			return fmt.Errorf("frame %d of %d is %+v, want %+v", i, len(want), g, w)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d frames, want %d", len(got), len(want))
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, o Options) (*Journal, []stored) {
	t.Helper()
	var list []stored
	j, err := Open(o, collect(&list))
	must(t, err)
	return j, list
}
