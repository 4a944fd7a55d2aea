package attach

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Network is attach.sock's kind of socket, for package net: SOCK_SEQPACKET.
const Network = "unixpacket"

// Send sends p with its descriptors: as many files as p.Files says, in order. They stay the caller's,
// who may close even those that another goroutine is just sending. It waits no longer than the
// connection's write deadline.
func Send(c *net.UnixConn, p Packet, files ...*os.File) error {
	b, err := Encode(p)
	if err != nil {
		return err
	}
	if len(files) != p.Files() {
		return fmt.Errorf("%s: %d descriptors were given for it; it has %d", p.Kind(), len(files), p.Files())
	}
	err = withDescriptors(files, make([]int, 0, len(files)), func(fds []int) error {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		_, _, err := c.WriteMsgUnix(b, oob, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", p.Kind(), err)
	}
	return nil
}

// withDescriptors calls f with the files' descriptors, none of which is closed meanwhile: the number of
// one that is closed may at once be that of another file.
func withDescriptors(files []*os.File, fds []int, f func([]int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = withDescriptors(files[1:], append(fds, int(fd)), f) }); err != nil {
		return err
	}
	return inner
}

// ReceiveRequest waits for the next request, until the connection's read deadline. Only if first is true,
// for the first packet of a connection, a descriptor is taken, which then belongs to an Adopt: of packets
// that come later the kernel throws descriptors away unopened.
//
// The error is io.EOF after a hang-up and a ProtocolError if a packet is not as it should be; no
// descriptor stays open then. To close a stranger's descriptor may block for as long as the stranger
// pleases (FUSE flushes, sockets linger), and so may this call.
func ReceiveRequest(c *net.UnixConn, first bool) (Request, *os.File, error) {
	room := 0
	if first {
		room = 1
	}
	var buffer [512]byte // the longest has 288
	b, fds, err := receive(c, buffer[:], room)
	if err != nil {
		return nil, nil, err
	}
	p, err := DecodeRequest(b)
	files, err := takeFiles(p, fds, err)
	if err != nil {
		return nil, nil, err
	}
	if len(files) == 0 {
		return p, nil, nil
	}
	return p, files[0], nil
}

// ReceiveReply waits for the next reply, until the connection's read deadline. The files are the
// caller's: as many as the packet's Files says, in its order. The error is io.EOF after a hang-up and a
// ProtocolError if the packet is not as it should be; no descriptor stays open then. A refusal is no
// error of this call, but an ErrorReply.
func ReceiveReply(c *net.UnixConn) (Reply, []*os.File, error) {
	b, fds, err := receive(c, make([]byte, MaxPacket), MaxEntries)
	if err != nil {
		return nil, nil, err
	}
	p, err := DecodeReply(b)
	files, err := takeFiles(p, fds, err)
	if err != nil {
		return nil, nil, err
	}
	return p, files, nil
}

// receive reads one packet with at most room descriptors. They are open only if there is no error.
func receive(c *net.UnixConn, buffer []byte, room int) ([]byte, []int, error) {
	// Not CmsgSpace: where that is more than needed for alignment, the kernel puts a further descriptor.
	var oob []byte
	if room > 0 {
		oob = make([]byte, unix.CmsgLen(4*room))
	}
	n, oobn, flags, _, err := c.ReadMsgUnix(buffer, oob) // net sets MSG_CMSG_CLOEXEC
	fds, foreign := rights(oob[:oobn])
	switch {
	case err != nil: // io.EOF too, which a packet of no bytes looks like
	case flags&unix.MSG_TRUNC != 0:
		err = malformed("a packet of more than the %d bytes that any of this side has", len(buffer))
	case flags&unix.MSG_CTRUNC != 0 && room == 0:
		err = malformed("a descriptor; only an ADOPT that is a connection's first packet has one")
	case flags&unix.MSG_CTRUNC != 0:
		// On this side too: the kernel leaves out what the process has no room for.
		err = malformed("more descriptors than fit: at most %d are expected, and the limit of open files (RLIMIT_NOFILE) must leave room for them", room)
	case foreign:
		err = malformed("a control message that carries no descriptors")
	}
	if err != nil {
		closeAll(fds)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) { // a reset: by somebody who had not read everything
			err = io.EOF
		}
		return nil, nil, err
	}
	return buffer[:n], fds, nil
}

// rights returns the descriptors in control messages, and whether there was anything else.
func rights(oob []byte) (fds []int, foreign bool) {
	if len(oob) == 0 {
		return nil, false
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, true
	}
	for _, m := range messages {
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			foreign = true
			continue
		}
		fds = append(fds, some...)
	}
	return fds, foreign
}

// takeFiles makes files of a packet's descriptors. Every descriptor of the protocol is of a memfd. Asking
// for its seals tells at once, whatever it is; other calls, fstat among them, may hang on a FUSE file.
func takeFiles(p Packet, fds []int, err error) ([]*os.File, error) {
	if err == nil && len(fds) != p.Files() {
		err = malformed("%s: %d descriptors came with it; it has %d", p.Kind(), len(fds), p.Files())
	}
	for i, fd := range fds {
		if err != nil {
			break
		}
		if _, sealErr := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); sealErr != nil {
			err = malformed("%s: descriptor %d is not of a memfd", p.Kind(), i)
		}
	}
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), "ring memory")
	}
	return files, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
