//go:build linux

package c_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// frame is a frame of HTTP/2.
func h2frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// headers are a block of HPACK without tables: names and values as they are.
func h2headers(pairs ...string) (block []byte) {
	for i := 0; i < len(pairs); i += 2 {
		block = append(block, 0)
		for _, s := range pairs[i : i+2] {
			if len(s) < 127 {
				block = append(block, byte(len(s)))
			} else {
				block = append(block, 127)
				block = binary.AppendUvarint(block, uint64(len(s)-127))
			}
			block = append(block, s...)
		}
	}
	return block
}

// liar accepts connections and says to each what it was told, then hangs up or waits for the client to do so.
func liar(t *testing.T, says []byte, hangsUp bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1024))
				_, _ = conn.Write(says)
				if !hangsUp {
					_, _ = io.Copy(io.Discard, conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return path
}

func TestAServerThatDoesNotSpeakHTTP2IsNotBelieved(t *testing.T) {
	needNghttp2(t)
	settings := h2frame(4, 0, 0, nil)
	ok := h2headers(":status", "200", "content-type", "application/grpc")
	done := h2headers("grpc-status", "0")
	message := func(prefix ...byte) []byte { return h2frame(0, 0, 1, prefix) }
	answer := func(frames ...[]byte) []byte {
		return bytes.Join(append([][]byte{settings, h2frame(1, 4, 1, ok)}, append(frames, h2frame(1, 5, 1, done))...), nil)
	}
	for name, says := range map[string][]byte{
		"nothing":                       nil,
		"HTTP/1":                        []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
		"zeros":                         make([]byte, 70000),
		"a huge frame":                  append(settings, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1),
		"half a frame":                  settings[:5],
		"data of no stream":             append(settings, h2frame(0, 0, 99, []byte("x"))...),
		"bad HPACK":                     append(settings, h2frame(1, 5, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x0f})...),
		"a status of 404":               append(settings, h2frame(1, 5, 1, h2headers(":status", "404"))...),
		"no gRPC status":                append(settings, h2frame(1, 5, 1, ok)...),
		"a status that is no number":    append(settings, h2frame(1, 5, 1, h2headers(":status", "200", "grpc-status", "12x"))...),
		"a reset":                       append(settings, h2frame(3, 0, 1, []byte{0, 0, 0, 2})...),
		"a goodbye":                     append(settings, h2frame(7, 0, 0, make([]byte, 8))...),
		"no message":                    answer(),
		"two messages":                  answer(message(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
		"half a message":                answer(message(0, 0, 0, 0, 9, 1)),
		"half a prefix":                 answer(message(0, 0, 0)),
		"a compressed message":          answer(message(1, 0, 0, 0, 0)),
		"a message of 4 GiB":            answer(message(0, 0xff, 0xff, 0xff, 0xff, 1)),
		"a message that is no protobuf": answer(message(0, 0, 0, 0, 2, 0xff, 0xff)),
		"a window of too much":          append(settings, h2frame(8, 0, 0, []byte{0x7f, 0xff, 0xff, 0xff})...),
		"a promise":                     append(settings, h2frame(5, 4, 1, append([]byte{0, 0, 0, 2}, ok...))...),
		"ten thousand pings":            append(settings, bytes.Repeat(h2frame(6, 0, 0, make([]byte, 8)), 10000)...),
		"ten thousand settings":         bytes.Repeat(settings, 10000),
	} {
		t.Run(name, func(t *testing.T) {
			c := drive(t, liar(t, says, true))
			for _, command := range []string{"receive /q wait=10", "send /q", "peek /q", "settle 0:x", "create /q", "delete /q", "request /q"} {
				c.tell("timeout 300")
				if strings.HasPrefix(command, "peek") && (name == "no message" || name == "two messages") {
					continue // pages come as a stream of any length
				}
				if r := c.do("%s", command); r.n >= 0 || r.reason == "" || r.message == "" {
					t.Errorf("%s: %v", command, r)
				}
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		c := drive(t, liar(t, settings, false))
		c.tell("timeout 50")
		c.bad(syscall.ETIMEDOUT, "TIMED_OUT", "peek /q")
	})
}

// raw passes bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "raw" }

// forger answers each method with bytes of the test's choice.
type forger struct {
	mu      sync.Mutex
	answers map[string][]byte // by the method's last word
	trailer metadata.MD
	err     error
}

func (f *forger) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	f.mu.Lock()
	answer, known := f.answers[method[strings.LastIndexByte(method, '/')+1:]]
	trailer, err := f.trailer, f.err
	f.mu.Unlock()
	if trailer != nil {
		stream.SetTrailer(trailer)
	}
	if !known {
		return err
	}
	return stream.SendMsg(&answer)
}

func (f *forger) set(method string, answer []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[method] = answer
}

func forge(t *testing.T) (*forger, *driver) {
	t.Helper()
	f := &forger{answers: map[string][]byte{"GetInfo": marshal(t, &ipcdv1.GetInfoResponse{Instance: "i"})}}
	socket := serve(t, func(*grpc.Server) {}, grpc.UnknownServiceHandler(f.handle), grpc.ForceServerCodec(raw{}))
	return f, drive(t, socket)
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sample are answers with everything in them.
func sample(t *testing.T) map[string][]byte {
	message := &ipcdv1.Message{
		Type: 1 << 40, Priority: 7, Body: []byte("body"), Headers: map[string][]byte{"a": []byte("b"), "c": nil}, Ttl: durationpb.New(3e9), DedupId: "d", CorrelationId: "c", ReplyTo: "/r", ContentType: "t",
	}
	now := timestamppb.Now()
	delivery := &ipcdv1.Delivery{Message: message, Queue: "/q", Sequence: 9, SendTime: now, Attempts: 2, LeaseExpireTime: now, Receipt: "r.1", TruncatedFrom: 99}
	peeked := &ipcdv1.PeekedMessage{Message: message, Sequence: 9, SendTime: now, State: 4, Attempts: 1, DueTime: now, LeaseExpireTime: now, ExpireTime: now, BuryReason: "because", TruncatedFrom: 4}
	index := uint32(0)
	return map[string][]byte{
		"Receive": marshal(t, &ipcdv1.ReceiveResponse{Deliveries: []*ipcdv1.Delivery{delivery, delivery, delivery}}),
		"Peek":    marshal(t, &ipcdv1.PeekResponse{Messages: []*ipcdv1.PeekedMessage{peeked, peeked}, Cursor: "next"}),
		"Send":    marshal(t, &ipcdv1.SendResponse{Stored: &ipcdv1.Stored{FirstSequence: 1, Count: 3, SendTime: now, Duplicates: []*ipcdv1.Duplicate{{Index: 1, Sequence: 5}}}}),
		"Settle": marshal(t, &ipcdv1.SettleResponse{
			Failures: []*ipcdv1.SettleFailure{{Index: 1, Error: &ipcdv1.Error{Code: 9, Reason: "STALE_RECEIPT", Message: "over", RetryAfter: durationpb.New(1e9), Index: &index}}},
			Touched:  []*ipcdv1.TouchedLease{{Index: 0, LeaseExpireTime: now}},
		}),
		"CreateQueue":        marshal(t, &ipcdv1.CreateQueueResponse{Created: true, Queue: &ipcdv1.Queue{Name: "/q"}}),
		"DeleteQueue":        marshal(t, &ipcdv1.DeleteQueueResponse{Messages: 3}),
		"OpenTemporaryQueue": marshal(t, &ipcdv1.OpenTemporaryQueueResponse{Queue: &ipcdv1.Queue{Name: "/tmp.x"}}),
	}
}

var commandOf = map[string]string{
	"Receive": "receive /q n=3", "Peek": "peek /q n=2", "Send": "send /q count=3", "Settle": "settle 2:a 0:b", "CreateQueue": "create /q", "DeleteQueue": "delete /q", "OpenTemporaryQueue": "request /q",
}

// TestDamagedAnswersAreErrorsOrTaken changes answers at random. Whatever comes of it, memory stays whole: the
// program is built with sanitizers.
func TestDamagedAnswersAreErrorsOrTaken(t *testing.T) {
	f, c := forge(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	good := sample(t)
	for method, command := range commandOf {
		if method == "OpenTemporaryQueue" {
			continue
		}
		f.set(method, good[method])
		if r := c.do("%s", command); r.n < 0 && method != "Settle" || r.reason == "INTERNAL" {
			t.Fatalf("%s undamaged: %v", method, r)
		}
		for n := range len(good[method]) { // cut short
			f.set(method, good[method][:n])
			c.do("%s", command)
		}
		for range 1000 {
			b := bytes.Clone(good[method])
			for range 1 + random.IntN(3) {
				switch at := random.IntN(len(b)); random.IntN(4) {
				case 0:
					b[at] ^= 1 << random.IntN(8)
				case 1:
					b[at] = byte(random.Uint32())
				case 2:
					b = append(b[:at:at], append([]byte{byte(random.Uint32())}, b[at:]...)...)
				case 3:
					if len(b) > 1 {
						b = append(b[:at:at], b[at+1:]...)
					}
				}
			}
			f.set(method, b)
			c.do("%s", command)
		}
	}
}

func TestAnswersOfTooMuchAreRefused(t *testing.T) {
	f, c := forge(t)
	four := &ipcdv1.ReceiveResponse{}
	for range 4 {
		four.Deliveries = append(four.Deliveries, &ipcdv1.Delivery{})
	}
	headers := map[string][]byte{}
	for i := range 1000 {
		headers[strings.Repeat("h", i)] = nil
	}
	fields := func(tag byte, n int) []byte { return bytes.Repeat([]byte{tag, 0}, n) }
	c.tell("timeout -1") // no call waits for more
	for name, answer := range map[string][]byte{
		"more than was asked for": marshal(t, four),
		"16 million deliveries":   fields(0x0a, 16<<20-1),
		"too many headers":        marshal(t, &ipcdv1.ReceiveResponse{Deliveries: []*ipcdv1.Delivery{{Message: &ipcdv1.Message{Headers: headers}}}}),
		"more than 32 MiB":        marshal(t, &ipcdv1.ReceiveResponse{Deliveries: []*ipcdv1.Delivery{{Message: &ipcdv1.Message{Body: make([]byte, 32<<20)}}}}),
	} {
		f.set("Receive", answer)
		if r := c.do("receive /q n=3"); r.n != -int64(syscall.EPROTO) || r.reason != "INTERNAL" {
			t.Errorf("%s: %v", name, r)
		}
	}
	f.set("Peek", fields(0x0a, 3))
	c.bad(syscall.EPROTO, "INTERNAL", "peek /q n=2")
	f.set("Send", marshal(t, &ipcdv1.SendResponse{Stored: &ipcdv1.Stored{FirstSequence: 1, Count: 2, Duplicates: []*ipcdv1.Duplicate{{Index: 2, Sequence: 5}}}}))
	c.bad(syscall.EPROTO, "INTERNAL", "send /q count=2")
	f.set("Send", marshal(t, &ipcdv1.SendResponse{Stored: &ipcdv1.Stored{FirstSequence: 1, Count: 3}}))
	c.bad(syscall.EPROTO, "INTERNAL", "send /q count=2")
	f.set("Settle", marshal(t, &ipcdv1.SettleResponse{Failures: []*ipcdv1.SettleFailure{{Index: 1, Error: &ipcdv1.Error{}}}}))
	c.bad(syscall.EPROTO, "INTERNAL", "settle 0:x")
}

func TestDetailsOfErrorsAreTakenOrLeft(t *testing.T) {
	f, c := forge(t)
	f.err = status.Error(codes.ResourceExhausted, "100% full: \n grüße")
	if r := c.bad(syscall.EDQUOT, "QUOTA_EXCEEDED", "peek /q"); !strings.HasPrefix(r.message, "100% full: ") {
		t.Errorf("%v", r)
	}
	info := func(domain, reason, index string) string {
		b := []byte{}
		put := func(to []byte, field int, value []byte) []byte {
			return append(binary.AppendUvarint(append(to, byte(field<<3|2)), uint64(len(value))), value...)
		}
		b = put(put(b, 1, []byte(reason)), 2, []byte(domain))
		b = put(b, 3, put(put(nil, 1, []byte("index")), 2, []byte(index)))
		any := put(put(nil, 1, []byte("type.googleapis.com/google.rpc.ErrorInfo")), 2, b)
		return string(put([]byte{8, 8}, 3, any))
	}
	for _, try := range []struct {
		details string
		errno   syscall.Errno
		reason  string
		index   int64
	}{
		{info("ipcd", "QUEUE_FULL", "17"), syscall.EAGAIN, "QUEUE_FULL", 17},
		{info("ipcd", "QUEUE_FULL", "99999999999999"), syscall.EAGAIN, "QUEUE_FULL", -1},
		{info("other", "QUEUE_FULL", "1"), syscall.EDQUOT, "QUOTA_EXCEEDED", -1},
		{info("ipcd", strings.Repeat("X", 1000), "1"), syscall.EPROTO, strings.Repeat("X", 63), 1},
		{info("ipcd", "", "1"), syscall.EDQUOT, "QUOTA_EXCEEDED", -1},
		{"\xff\xff", syscall.EDQUOT, "QUOTA_EXCEEDED", -1},
	} {
		f.mu.Lock()
		f.trailer = metadata.Pairs("grpc-status-details-bin", try.details)
		f.mu.Unlock()
		if r := c.bad(try.errno, try.reason, "peek /q"); r.index != try.index {
			t.Errorf("%q: index %d, not %d", try.details, r.index, try.index)
		}
	}
	// What is not even base64, or is very large.
	for _, details := range []string{"*!", strings.Repeat("A", 20000), base64.RawStdEncoding.EncodeToString([]byte{8, 8, 0x1a, 0xff})} {
		block := h2headers(":status", "200", "grpc-status", "8", "grpc-message", "%zz%4", "grpc-status-details-bin", details)
		says := h2frame(4, 0, 0, nil)
		first, flags := block[:min(len(block), 16000)], byte(1)
		if len(first) == len(block) {
			flags = 5
		}
		says = append(says, h2frame(1, flags, 1, first)...)
		if flags == 1 {
			says = append(says, h2frame(9, 4, 1, block[16000:])...)
		}
		l := drive(t, liar(t, says, false))
		l.bad(syscall.EDQUOT, "QUOTA_EXCEEDED", "peek /q")
	}
}
