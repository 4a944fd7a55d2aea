package attach

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/reason"
)

func token() (t [32]byte) {
	for i := range t {
		t[i] = byte(0xa0 + i)
	}
	return t
}

// packets has one of every kind, with every field set and different from all others.
func packets() map[string]Packet {
	return map[string]Packet{
		"attach": Attach{Role: Consumer, Lossless: true, Name: "/ticks"},
		"ready":  Ready{},
		"pull":   Pull{Epoch: 0x0102030405060708},
		"got":    Got{},
		"detach": Detach{},
		"adopt": Adopt{Role: Producer, Lossless: true, RingID: 0x1112131415161718, MemberID: 0x2122232425262728,
			Epoch: 0x3132333435363738, Slot: 63, Token: token(), Name: "/" + strings.Repeat("n", 200)},
		"error": ErrorReply{Status: uint32(unix.EDQUOT), Reason: reason.QuotaExceeded, Text: "uid 7 has 256 members: détach some"},
		"memory": Memory{RingID: 0x1112131415161718, MemberID: 0x2122232425262728, Slot: 62, Lossless: true, Capacity: 1 << 20,
			MaxFrame: 1 << 18, Stall: time.Second, Epoch: 0x3132333435363738, Size: 1<<20 + 8192},
		"attached": Attached{Token: token(), Epoch: 0x4142434445464748},
		"members": Members{Epoch: 0x5152535455565758, Partial: true, Entries: []Entry{
			{ID: 0x61, Epoch: 0x62, Kind: EntryLane, Slot: 3, Lossless: true, Ended: true, File: true, Daemon: true, PID: 0x64, Size: 0x65, Capacity: 0x66, MaxFrame: 0x67, UID: 0x68},
			{ID: 0x71, Epoch: 0x72, Kind: EntryConsumer, Slot: 4, PID: 0x74, Size: 0x75, UID: 0x78},
		}},
		"adopted":  Adopted{Token: token(), Epoch: 0x4142434445464748},
		"detached": Detached{},
	}
}

func decode(b []byte) (Packet, error) {
	if len(b) > 0 && b[0]&0x80 != 0 {
		return DecodeReply(b)
	}
	return DecodeRequest(b)
}

func encode(t testing.TB, p Packet) []byte {
	t.Helper()
	b, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The files in testdata are what programs built against this version send and expect: they never change.
func TestPacketsHaveTheBytesOfVersion1(t *testing.T) {
	all := packets()
	if len(all) != len(kindNames) {
		t.Fatalf("%d packets, %d kinds", len(all), len(kindNames))
	}
	for name, p := range all {
		text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
		if err != nil {
			t.Fatal(err)
		}
		golden, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := encode(t, p); !bytes.Equal(got, golden) {
			t.Errorf("%s is\n%swant\n%s", name, hex.Dump(got), hex.Dump(golden))
		}
		back, err := decode(golden)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(back, p) {
			t.Errorf("%s: decoded %+v, want %+v", name, back, p)
		}
	}
}

func TestCutOffAndLengthenedPacketsAreRefused(t *testing.T) {
	for name, p := range packets() {
		whole := encode(t, p)
		for n := range whole {
			cut := bytes.Clone(whole[:n])
			if _, err := decode(cut); !isProtocol(err) {
				t.Fatalf("%s cut to %d bytes: %v", name, n, err)
			}
			// A size that agrees does not help, but for the text of an error, which goes on to the end.
			if n < headerBytes || p.Kind() == KindError && n >= errorBytes {
				continue
			}
			wire(cut).setU32(4, uint32(n))
			if _, err := decode(cut); !isProtocol(err) {
				t.Fatalf("%s with size %d: %v", name, n, err)
			}
		}
		if p.Kind() == KindError {
			continue
		}
		longer := append(bytes.Clone(whole), 0)
		wire(longer).setU32(4, uint32(len(longer)))
		if _, err := decode(longer); !isProtocol(err) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
	}
}

func isProtocol(err error) bool {
	var p ProtocolError
	return errors.As(err, &p)
}

func TestWhatIsOutsideTheProtocolIsRefused(t *testing.T) {
	for _, c := range []struct {
		packet, what string
		change       func(w wire)
		want         string
	}{
		{"attach", "version", func(w wire) { w.setU16(2, 2) }, "version 2"},
		{"attach", "kind 0", func(w wire) { w.setU16(0, 0) }, "no such request"},
		{"attach", "kind 7", func(w wire) { w.setU16(0, 7) }, "no such request"},
		{"attach", "reply as request", func(w wire) { w.setU16(0, 0x81) }, "224 bytes"},
		{"memory", "kind 0x86", func(w wire) { w.setU16(0, 0x86) }, "no such reply"},
		{"attach", "size", func(w wire) { w.setU32(4, 225) }, "size"},
		{"attach", "role 0", func(w wire) { w.setU32(8, 0) }, "role 0"},
		{"attach", "role 3", func(w wire) { w.setU32(8, 3) }, "role 3"},
		{"attach", "flags", func(w wire) { w.setU32(12, 2) }, "flags"},
		{"attach", "lossless producer", func(w wire) { w.setU32(8, 1) }, "LOSSLESS"},
		{"attach", "no slash", func(w wire) { w[16] = 't' }, "slash"},
		{"attach", "no name", func(w wire) { clear(w[16:]) }, "slash"},
		{"attach", "slash alone", func(w wire) { clear(w[17:]) }, "slash"},
		{"attach", "after the NUL", func(w wire) { w[223] = 1 }, "NUL"},
		{"adopt", "name too long", func(w wire) { w[80+201] = 'n' }, "201"},
		{"adopt", "slot", func(w wire) { w.setU32(40, 64) }, "slot 64"},
		{"adopt", "reserved", func(w wire) { w[47] = 1 }, "reserved"},
		{"adopt", "role", func(w wire) { w.setU32(8, 9) }, "role 9"},
		{"error", "reserved", func(w wire) { w[12] = 1 }, "reserved"},
		{"error", "reason", func(w wire) { w[47] = 1 }, "NUL"},
		{"error", "UTF-8", func(w wire) { w[48] = 0xff }, "UTF-8"},
		{"memory", "reserved", func(w wire) { w[44] = 1 }, "reserved"},
		{"memory", "slot", func(w wire) { w.setU32(24, 1<<31) }, "slot"},
		{"memory", "stall", func(w wire) { w.setU64(48, 1<<63) }, "stall"},
		{"memory", "flags", func(w wire) { w.setU32(28, 3) }, "flags"},
		{"members", "count", func(w wire) { w.setU32(16, 3) }, "3 entries"},
		{"members", "huge count", func(w wire) { w.setU32(16, 1<<26+2) }, "entries"}, // 2 modulo 2^32 / 64
		{"members", "flags", func(w wire) { w.setU32(20, 2) }, "flags"},
		{"members", "kind", func(w wire) { w.setU32(24+16, 3) }, "kind 3"},
		{"members", "slot", func(w wire) { w.setU32(24+20, 64) }, "slot"},
		{"members", "entry flags", func(w wire) { w.setU32(24+64+24, 16) }, "entry 1"},
		{"members", "entry reserved", func(w wire) { w[24+64+63] = 1 }, "reserved"},
	} {
		w := wire(encode(t, packets()[c.packet]))
		c.change(w)
		if p, err := decode(w); !isProtocol(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: %+v, %v; want an error with %q", c.packet, c.what, p, err, c.want)
		}
	}
}

func TestWhatCannotBeSaidIsNotSent(t *testing.T) {
	for what, p := range map[string]Packet{
		"long name":     Attach{Role: Producer, Name: "/" + strings.Repeat("n", 201)},
		"NUL in a name": Attach{Role: Producer, Name: "/a\x00b"},
		"no role":       Attach{Name: "/a"},
		"slot":          Adopt{Role: Producer, Name: "/a", Slot: 64},
		"entries":       Members{Entries: make([]Entry, MaxEntries+1)},
		"reason":        ErrorReply{Reason: reason.Reason(strings.Repeat("R", 33))},
		"text":          ErrorReply{Text: strings.Repeat("t", 1025)},
	} {
		if b, err := Encode(p); err == nil {
			t.Errorf("%s: encoded to %d bytes", what, len(b))
		}
	}
}

func TestTheLargestListFitsIntoAPacket(t *testing.T) {
	m := Members{Entries: make([]Entry, MaxEntries)}
	for i := range m.Entries {
		m.Entries[i] = Entry{Kind: EntryLane, File: true}
	}
	b := encode(t, m)
	if len(b) > MaxPacket {
		t.Errorf("%d bytes", len(b))
	}
	if p, err := DecodeReply(b); err != nil || p.Files() != MaxEntries {
		t.Errorf("%v, %v", p, err)
	}
}

// Every reason has the errno that the C headers of this machine give its name.
func TestErrnosAreThoseOfTheKernel(t *testing.T) {
	for name, number := range errnos {
		if got := unix.ErrnoName(unix.Errno(number)); got != name {
			t.Errorf("%s is %d here, which is %s", name, number, got)
		}
	}
	for _, r := range reason.All() {
		p := ErrorOf(reason.New(r, "text"))
		if unix.ErrnoName(unix.Errno(p.Status)) != r.Lookup().Errno {
			t.Errorf("%s: status %d; its errno is %s", r, p.Status, r.Lookup().Errno)
		}
		if back := p.Err(); back.Reason != r || back.Message != "text" {
			t.Errorf("%s came back as %s, %q", r, back.Reason, back.Message)
		}
		encode(t, p)
	}
}

func TestLongErrorsAreCutBetweenRunes(t *testing.T) {
	for _, text := range []string{strings.Repeat("é", 600), "x" + strings.Repeat("é", 600), strings.Repeat("\xffx", 2000)} {
		p := ErrorOf(reason.New(reason.Internal, "%s", text))
		if len(p.Text) < textBytes-1 {
			t.Errorf("cut to %d bytes", len(p.Text))
		}
		if _, err := decode(encode(t, p)); err != nil {
			t.Error(err)
		}
	}
}

// Whatever decodes is encoded to the same bytes, so nothing in a packet goes unread.
func FuzzDecode(f *testing.F) {
	for _, p := range packets() {
		b, err := Encode(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		request, err := DecodeRequest(b)
		checkFuzzed(t, b, request, err)
		reply, err := DecodeReply(b)
		checkFuzzed(t, b, reply, err)
	})
}

func checkFuzzed(t *testing.T, b []byte, p Packet, err error) {
	if err != nil {
		if !isProtocol(err) {
			t.Fatalf("%v is no ProtocolError", err)
		}
		return
	}
	again, err := Encode(p)
	if err != nil || !bytes.Equal(again, b) {
		t.Fatalf("%+v: %v\n%swas\n%s", p, err, hex.Dump(again), hex.Dump(b))
	}
}
