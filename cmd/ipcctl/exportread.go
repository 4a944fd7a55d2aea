package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ipcd/ipcd/client"
)

// errTorn says that a file ends in the middle of something: the export was interrupted.
var errTorn = errors.New("it ends in the middle of a message: the export was interrupted, export --resume completes it")

// exportReader reads a file of either format.
type exportReader struct {
	header exportHeader
	format string
	number int64 // of the messages read so far
	// whole is how many bytes of the file hold the header and what was read so far. In the compact format it moves in members.
	whole int64
	// unended: the last line is whole, but for its newline.
	unended bool
	step    func() (*client.Peeked, error)
}

// newExportReader reads the header.
func newExportReader(in io.Reader) (*exportReader, error) {
	counted := &countedReader{r: bufio.NewReaderSize(in, 256<<10)}
	first, err := counted.r.Peek(2)
	switch {
	case len(first) == 0 && errors.Is(err, io.EOF):
		return nil, errors.New("it is empty")
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case first[0] == '{':
		return newJSONLReader(counted)
	case bytes.Equal(first, []byte{0x1f, 0x8b}):
		return newCompactReader(counted)
	}
	return nil, errors.New("it is no export: it begins neither as JSON lines nor as the compact format")
}

// next returns the next message; io.EOF: that was all, errTorn: it ends in the middle of something. Other errors name the message.
func (r *exportReader) next() (*client.Peeked, error) {
	p, err := r.step()
	switch {
	case err == nil:
		r.number++
		return p, nil
	case errors.Is(err, io.EOF), errors.Is(err, errTorn):
		return nil, err
	}
	return nil, fmt.Errorf("message %d: %w", r.number+1, err)
}

func newJSONLReader(in *countedReader) (*exportReader, error) {
	r := &exportReader{format: "jsonl"}
	read := func() ([]byte, error) {
		text, err := readLine(in.r, lineBytesMax)
		switch {
		case errors.Is(err, errLongLine):
			return nil, fmt.Errorf("its line is longer than %d bytes", lineBytesMax)
		case err == io.EOF && text != nil:
			if !json.Valid(text) {
				return nil, errTorn
			}
			r.unended = true
			r.whole += int64(len(text))
			return text, nil
		case err == nil:
			r.whole += int64(len(text)) + 1
		}
		return text, err
	}
	text, err := read()
	if err != nil {
		return nil, err
	}
	if r.header, err = headerOf(text); err != nil {
		return nil, err
	}
	r.step = func() (*client.Peeked, error) {
		before := r.whole
		text, err := read()
		if err != nil {
			return nil, err
		}
		var v messageView
		if err = json.Unmarshal(text, &v); err == nil {
			var p *client.Peeked
			if p, err = v.peekedOf(); err == nil {
				return p, nil
			}
		}
		r.whole = before
		return nil, err
	}
	return r, nil
}

func newCompactReader(in *countedReader) (*exportReader, error) {
	r := &exportReader{format: "compact"}
	var member []byte
	var unpacked *gzip.Reader
	// load reads a whole member, so that only what is not torn and has the right checksum is handed out.
	load := func() (err error) {
		if unpacked == nil {
			unpacked, err = gzip.NewReader(in)
		} else {
			err = unpacked.Reset(in)
		}
		if err == nil {
			unpacked.Multistream(false)
			var b bytes.Buffer
			if _, err = io.Copy(&b, io.LimitReader(unpacked, memberBytesMax+1)); err == nil && b.Len() > memberBytesMax {
				err = fmt.Errorf("a part of it has more than %d bytes", memberBytesMax)
			}
			member = b.Bytes()
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			member, err = nil, errTorn
		}
		if err != nil {
			member = nil
		}
		return err
	}
	if err := load(); err != nil {
		return nil, err
	}
	var isOurs bool
	if member, isOurs = bytes.CutPrefix(member, []byte(compactMagic)); !isOurs {
		return nil, errors.New("it is compressed, and no export in the compact format")
	}
	payload, member, err := cutRecord(member)
	if err != nil {
		return nil, err
	}
	if r.header, err = headerOf(payload); err != nil {
		return nil, err
	}
	r.step = func() (*client.Peeked, error) {
		for len(member) == 0 {
			r.whole = in.n
			if err := load(); err != nil {
				return nil, err
			}
		}
		payload, rest, err := cutRecord(member)
		if err != nil {
			return nil, err
		}
		p := &client.Peeked{Queue: r.header.Queue}
		if err := p.UnmarshalBinary(payload); err != nil {
			return nil, err
		}
		if member = rest; len(member) == 0 {
			r.whole = in.n
		}
		return p, nil
	}
	if len(member) == 0 {
		r.whole = in.n
	}
	return r, nil
}

// cutRecord takes the first record off a member.
func cutRecord(member []byte) (payload, rest []byte, err error) {
	length, n := binary.Uvarint(member)
	if n <= 0 || uint64(len(member)-n) < 4 || length > uint64(len(member)-n-4) {
		return nil, nil, errors.New("its record is damaged: its length is wrong")
	}
	sum := binary.LittleEndian.Uint32(member[n:])
	payload = member[n+4 : n+4+int(length)]
	if crc32.Checksum(payload, castagnoli) != sum {
		return nil, nil, errors.New("its record is damaged: its checksum is wrong")
	}
	return payload, member[n+4+int(length):], nil
}

// countedReader counts what has been taken. It hands out single bytes, so that gzip takes no more than a member.
type countedReader struct {
	r *bufio.Reader
	n int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *countedReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
