package rpc

import (
	"encoding/binary"
	"net"

	"google.golang.org/grpc/mem"
)

// Of HTTP/2 (RFC 9113): the length of what a client says first, and of a frame's header; and what is looked at in it.
const (
	prefaceBytes     = 24
	frameHeaderBytes = 9
	frameData        = 0x0
	frameHeaders     = 0x1
	frameContinued   = 0x9
	flagEndHeaders   = 0x4
)

// frames finds the frames in what a client sends. It looks at their headers only, and leaves judgement to gRPC.
type frames struct {
	skip   int // bytes of the preface or of a frame's payload that are to come
	header [frameHeaderBytes]byte
	have   int    // bytes of header that are there
	last   bool   // with the payload a call's headers are complete
	opened uint32 // the stream of the headers that came last
}

// next goes through p, up to where a call's headers are complete, and returns how far it has come: at least one byte, if
// there is any. data is told of DATA frames as they begin: of their stream, and their length in bytes.
func (f *frames) next(p []byte, data func(stream uint32, length int)) int {
	for i := 0; ; {
		n := min(f.skip, len(p)-i)
		f.skip -= n
		i += n
		if f.skip == 0 && f.last {
			f.last = false
			return i
		}
		if i == len(p) {
			return i
		}
		n = copy(f.header[f.have:], p[i:])
		f.have += n
		i += n
		if f.have < frameHeaderBytes {
			return i
		}
		f.have = 0
		f.skip = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
		stream := binary.BigEndian.Uint32(f.header[5:]) & (1<<31 - 1)
		switch f.header[3] {
		case frameData:
			data(stream, f.skip)
		case frameHeaders:
			f.opened, f.last = stream, f.header[4]&flagEndHeaders != 0
		case frameContinued:
			f.last = f.header[4]&flagEndHeaders != 0
		}
	}
}

// framed is an identified connection as gRPC reads it. A read ends where a call's headers are complete, so that the call
// that gRPC begins is the one of frames.opened: gRPC itself does not tell which stream a call is.
type framed struct {
	net.Conn // the connection, or TLS over it
	conn     *connection
	frames   frames
	added    int64 // bytes charged in the read at hand
	onData   func(stream uint32, length int)

	rest   []byte         // was read, and is for the next reads
	kept   *[]byte        // what rest is part of, if it is of a pool
	keptOf mem.BufferPool // which one
}

func newFramed(secured net.Conn, conn *connection) *framed {
	f := &framed{Conn: secured, conn: conn, frames: frames{skip: prefaceBytes}}
	f.onData = func(stream uint32, length int) { f.added += conn.arrived(stream, length) }
	conn.framed = f
	return f
}

// scan returns how much of p may be read now.
func (f *framed) scan(p []byte) int {
	f.added = 0
	n := f.frames.next(p, f.onData)
	if f.added != 0 {
		f.conn.hold(f.added)
	}
	return n
}

// Read reads.
func (f *framed) Read(p []byte) (int, error) {
	if len(f.rest) > 0 {
		return f.readRest(p), nil
	}
	n, err := f.Conn.Read(p)
	if n == 0 {
		return 0, err
	}
	seen := f.scan(p[:n])
	if seen < n {
		f.rest, err = append([]byte(nil), p[seen:n]...), nil // an error comes again
	}
	return seen, err
}

func (f *framed) readRest(p []byte) int {
	n := f.scan(f.rest[:min(len(f.rest), len(p))])
	copy(p, f.rest[:n])
	f.rest = f.rest[n:]
	if len(f.rest) == 0 {
		f.rest = nil
		if f.kept != nil {
			f.keptOf.Put(f.kept)
			f.kept, f.keptOf = nil, nil
		}
	}
	return n
}

// ReadOnReady is Read that takes a buffer from the pool only when there is something to read, so that an idle connection
// holds none. gRPC looks for this method; by itself it does the same with sockets alone. It is for one goroutine.
func (f *framed) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if len(f.rest) > 0 {
		buffer := pool.Get(size)
		return buffer, f.readRest(*buffer), nil
	}
	var buffer *[]byte
	var n int
	var err error
	if plain, ok := f.Conn.(*connection); ok && plain.ready.raw != nil {
		buffer, n, err = plain.ready.next(size, pool)
	} else {
		buffer = pool.Get(size)
		n, err = f.Conn.Read(*buffer)
	}
	if n == 0 {
		if buffer != nil {
			pool.Put(buffer)
		}
		return nil, 0, err
	}
	seen := f.scan((*buffer)[:n])
	if seen == n {
		return buffer, n, err
	}
	f.rest, f.kept, f.keptOf = (*buffer)[seen:n], buffer, pool
	first := pool.Get(size)
	copy(*first, (*buffer)[:seen])
	return first, seen, nil
}
