//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/attach"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// exceeded fails unless a call was refused for a quota.
func exceeded(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, client.ErrQuotaExceeded) {
		t.Errorf("%s: %v, want QUOTA_EXCEEDED", what, err)
	}
}

// setQuota sets a user's limits by ipcctl.
func (d *daemon) setQuota(t *testing.T, uid uint32, limits ...string) {
	t.Helper()
	d.ctl(t, append([]string{"quota", "set", fmt.Sprint(uid)}, limits...)...).ok(t)
}

// quotaJSON is what ipcctl quota ls shows of one resource.
type quotaJSON struct {
	Used   int64
	Limit  *int64
	Source string
}

// quotas returns a user's quotas by resource, as ipcctl shows them.
func (d *daemon) quotas(t *testing.T, uid uint32) map[string]quotaJSON {
	t.Helper()
	var document struct {
		Quotas []struct {
			Quotas []struct {
				Resource string
				quotaJSON
			}
		}
	}
	unmarshal(t, d.ctl(t, "quota", "ls", "--user", fmt.Sprint(uid), "-o", "json").ok(t), &document)
	all := map[string]quotaJSON{}
	for _, of := range document.Quotas {
		for _, q := range of.Quotas {
			all[q.Resource] = q.quotaJSON
		}
	}
	return all
}

// uses fails unless a user uses exactly that much.
func (d *daemon) uses(t *testing.T, uid uint32, resource string, want int64) {
	t.Helper()
	if got := d.quotas(t, uid)[resource].Used; got != want {
		t.Errorf("uid %d uses %d %s, want %d", uid, got, resource, want)
	}
}

func TestQuotaOfQueuesAndRingsIsExact(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	d.setQuota(t, strangerUID, "--queues", "2", "--rings", "1")
	c, another, root := d.dialAs(t, stranger), d.dialAs(t, other), d.dial(t)
	createNamed(t, c, "/a", memory())
	createNamed(t, c, "/b", memory())
	_, err := c.CreateQueue(within(t), "/c", memory())
	exceeded(t, "a third queue", err)
	if _, err := c.CreateQueue(within(t), "/b", memory()); err != nil {
		t.Errorf("a queue that is there already: %v", err)
	}
	d.as(t, nil, "ipcctl", "create", "/c", "--mqueue", "none").exits(t, 1).says(t, "quota", "2 queues", fmt.Sprint(strangerUID))
	ring := client.RingSettings{CapacityBytes: 64 << 10}
	if _, err := c.CreateRing(within(t), "/a", ring); err != nil {
		t.Fatal(err)
	}
	_, err = c.CreateRing(within(t), "/b", ring)
	exceeded(t, "a second ring", err)
	for _, free := range []*client.Client{another, root} {
		for i := range 3 {
			createNamed(t, free, unique(), memory())
			if _, err := free.CreateRing(within(t), fmt.Sprint(unique(), i), ring); err != nil {
				t.Errorf("of who is not at the quota: %v", err)
			}
		}
	}

	// What is deleted or given away makes room, what is taken over takes it.
	d.uses(t, strangerUID, "queues", 2)
	if _, err := c.DeleteQueue(within(t), "/a"); err != nil {
		t.Fatal(err)
	}
	createNamed(t, c, "/c", memory())
	d.ctl(t, "chown", fmt.Sprint(other.uid), "/c").ok(t)
	d.ctl(t, "ring", "chown", fmt.Sprint(other.uid), "/a").ok(t)
	d.uses(t, strangerUID, "queues", 1)
	d.uses(t, strangerUID, "rings", 0)
	d.uses(t, other.uid, "queues", 4)
	d.uses(t, other.uid, "rings", 4)

	// A limit below what is there takes nothing away, and is raised again by a reset.
	d.setQuota(t, strangerUID, "--queues", "0")
	d.uses(t, strangerUID, "queues", 1)
	_, err = c.CreateQueue(within(t), "/d", memory())
	exceeded(t, "a queue beyond a limit of 0", err)
	d.ctl(t, "quota", "reset", fmt.Sprint(strangerUID), "--queues").ok(t)
	createNamed(t, c, "/d", memory())
	if q := d.quotas(t, strangerUID); q["queues"].Source != "default" || q["rings"].Source != "set" || *q["rings"].Limit != 1 {
		t.Errorf("after the reset of one: %+v", q)
	}
	if q := d.quotas(t, 0); q["queues"].Source != "exempt" || q["queues"].Limit != nil {
		t.Errorf("root has %+v", q["queues"])
	}
}

func TestQuotaOfQueuedBytesIsTheOwners(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	d.setQuota(t, strangerUID, "--queued-bytes", "10000")
	open := func(s *client.QueueSettings) { s.Mode = new(uint32(0o666)) }
	c := d.dialAs(t, stranger)
	mine, second := createNamed(t, c, "/mine", memory(open)), createNamed(t, c, "/second", memory(open))
	send(t, mine, client.Message{Body: make([]byte, 6000)})
	used := d.quotas(t, strangerUID)["queued_bytes"].Used
	if used < 6000 || used > 7000 {
		t.Fatalf("a message of 6000 bytes uses %d", used)
	}
	fits := client.Message{Body: make([]byte, 10000-used)} // of an empty one nothing else counts
	_, err := second.Send(within(t), client.Message{Body: make([]byte, len(fits.Body)+1)})
	exceeded(t, "a byte more than there is room for", err)
	for _, who := range []*client.Client{d.dialAs(t, other), d.dial(t)} {
		_, err := who.Queue("/mine").Send(within(t), client.Message{Body: make([]byte, len(fits.Body)+1)})
		exceeded(t, "whoever sends, it is the owner's quota", err)
	}
	send(t, d.dialAs(t, other).Queue("/second"), fits)
	d.uses(t, strangerUID, "queued_bytes", 10000)
	d.uses(t, other.uid, "queued_bytes", 0)
	_, err = mine.Send(within(t), client.Message{Body: []byte("x")})
	exceeded(t, "a byte more", err)
	send(t, createNamed(t, d.dialAs(t, other), "/others", memory()), client.Message{Body: make([]byte, 20000)})

	receive(t, mine, 1, client.ReceiveOptions{AtOnce: true})
	d.uses(t, strangerUID, "queued_bytes", 10000-used)
	send(t, mine, client.Message{Body: make([]byte, 6000)})
	d.ctl(t, "purge", "/mine", "--force").ok(t)
	d.ctl(t, "rm", "/second", "--force").ok(t)
	d.uses(t, strangerUID, "queued_bytes", 0)
}

func TestQuotaSurvivesARestart(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	dir := shortDir(t)
	d := startIn(t, dir)
	d.setQuota(t, strangerUID, "--queues", "1", "--queued-bytes", "1000", "--rings", "1")
	d.ctl(t, "quota", "set", "--certificate", "spiffe://example.org/a", "--streams", "3").ok(t)
	d.ctl(t, "quota", "set", "--anonymous", "--connections", "unlimited").ok(t)
	c := d.dialAs(t, stranger)
	q := createNamed(t, c, "/durable", client.QueueSettings{Mqueue: client.KernelQueue{Mode: client.KernelNone}})
	if _, err := c.CreateRing(within(t), "/r", client.RingSettings{CapacityBytes: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	send(t, q, client.Message{Body: make([]byte, 900)})
	before := d.quotas(t, strangerUID)
	listed := d.ctl(t, "quota", "ls", "-o", "json").ok(t)
	for name, end := range map[string]func(){"a kill": func() { d.kill() }, "a stop": func() { d.signal(syscall.SIGTERM); d.awaitExit(t) }} {
		end()
		d = startIn(t, dir)
		now := d.quotas(t, strangerUID)
		for _, r := range []string{"queues", "queued_bytes", "rings"} {
			if now[r].Used != before[r].Used || now[r].Limit == nil || *now[r].Limit != *before[r].Limit || now[r].Source != "set" {
				t.Errorf("after %s: %s: %+v, before %+v", name, r, now[r], before[r])
			}
		}
		if again := d.ctl(t, "quota", "ls", "-o", "json").ok(t); !strings.Contains(again, "spiffe://example.org/a") || !strings.Contains(again, `"anonymous":true`) {
			t.Errorf("after %s quotas are missing: %s\nbefore: %s", name, again, listed)
		}
		c := d.dialAs(t, stranger)
		_, err := c.CreateQueue(within(t), "/more", memory())
		exceeded(t, "a queue after "+name, err)
		_, err = c.CreateRing(within(t), "/more", client.RingSettings{CapacityBytes: 64 << 10})
		exceeded(t, "a ring after "+name, err)
		_, err = c.Queue("/durable").Send(within(t), client.Message{Body: make([]byte, 200)})
		exceeded(t, "a message after "+name, err)
	}
}

// attachAs connects to the attach socket and says nothing.
func (d *daemon) attachAs(t *testing.T, c caller) *net.UnixConn {
	t.Helper()
	conn, err := c.connect("unixpacket", d.attach)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

func TestQuotaOfConnectionsCountsAllSockets(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	d.setQuota(t, strangerUID, "--connections", "3")
	first, second := d.dialAs(t, stranger), d.dialAs(t, stranger)
	for _, c := range []*client.Client{first, second} {
		if _, err := c.Info(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	member := d.attachAs(t, stranger)
	eventually(t, "three connections", func() bool { return d.quotas(t, strangerUID)["connections"].Used == 3 })

	_, err := d.dialAs(t, stranger).Info(within(t))
	exceeded(t, "a fourth connection", err)
	d.as(t, nil, "ipcctl", "info").exits(t, 1).says(t, "quota", "3 connections")
	refused := d.attachAs(t, stranger)
	_ = refused.SetDeadline(time.Now().Add(patience))
	reply, _, err := attach.ReceiveReply(refused)
	if e, ok := reply.(attach.ErrorReply); err != nil || !ok || !strings.Contains(e.Err().Error(), "connections") {
		t.Errorf("a fourth connection, to the attach socket: %+v, %v", reply, err)
	}
	d.uses(t, strangerUID, "connections", 3)
	for _, who := range []caller{other, {}} {
		if _, err := d.dialAs(t, who).Info(within(t)); err != nil {
			t.Errorf("uid %d: %v", who.uid, err)
		}
		d.attachAs(t, who)
	}

	// Each that closes makes room for one, at either socket.
	member.Close()
	eventually(t, "there is room", func() bool { _, err := d.dialAs(t, stranger).Info(within(t)); return err == nil })
	_, err = first.Info(within(t))
	if err != nil {
		t.Errorf("the first connection: %v", err)
	}
	_, err = d.dialAs(t, stranger).Info(within(t))
	exceeded(t, "a fourth connection again", err)
	first.Close()
	eventually(t, "there is room again", func() bool { _, err := d.dialAs(t, stranger).Info(within(t)); return err == nil })
}

func TestQuotaOfStreamsIsExact(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	send(t, createNamed(t, d.dial(t), "/q", memory(func(s *client.QueueSettings) { s.Mode = new(uint32(0o666)) })), text("m")...)
	d.setQuota(t, strangerUID, "--streams", "3")
	conns := []ipcdv1.MessageServiceClient{d.apiAs(t, stranger), d.apiAs(t, stranger)}
	peek := func(api ipcdv1.MessageServiceClient) (cancel func(), err error) {
		ctx, cancel := context.WithCancel(within(t))
		stream, err := api.Peek(ctx, &ipcdv1.PeekRequest{Queue: "/q", Follow: true})
		if err == nil {
			_, err = stream.Recv() // it is under way
		}
		return cancel, err
	}
	var cancels []func()
	for i := range 3 {
		cancel, err := peek(conns[i%2])
		if err != nil {
			t.Fatal(err)
		}
		cancels = append(cancels, cancel)
	}
	eventually(t, "three calls", func() bool { return d.quotas(t, strangerUID)["streams"].Used == 3 })
	for _, api := range conns {
		_, err := api.Send(within(t), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
		if err == nil || !strings.Contains(err.Error(), "calls under way") {
			t.Errorf("a fourth call: %v", err)
		}
	}
	if _, err := d.dialAs(t, other).Queue("/q").Send(within(t), client.Message{}); err != nil {
		t.Errorf("another user: %v", err)
	}
	cancels[0]()
	eventually(t, "there is room", func() bool {
		_, err := conns[0].Send(within(t), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
		return err == nil
	})
	cancels[1]()
	cancels[2]()
	eventually(t, "no calls", func() bool { return d.quotas(t, strangerUID)["streams"].Used == 0 })
}

// apiAs returns the bare service over a connection of its own.
func (d *daemon) apiAs(t *testing.T, c caller) ipcdv1.MessageServiceClient {
	t.Helper()
	return ipcdv1.NewMessageServiceClient(d.connAs(t, c))
}

func TestQuotaOfReceiversIsExact(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	q := createNamed(t, d.dial(t), "/q", memory(func(s *client.QueueSettings) { s.Mode = new(uint32(0o666)) }))
	d.setQuota(t, strangerUID, "--receivers", "2")
	wait := func() *exec.Cmd {
		cmd := d.command(within(t), "ipcctl", "recv", "/q", "--wait", "1h")
		cmd.Dir = "/"
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: strangerUID, Gid: strangerGID}
		return cmd
	}
	waits := background(t, wait())
	c := d.dialAs(t, stranger)
	ctx, stop := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		ended <- c.Queue("/q").Consume(ctx, func(context.Context, *client.Delivery) error { return nil }, client.ConsumeOptions{})
	}()
	awaitStats(t, q, "two receive", func(s client.QueueStats) bool { return s.Receivers == 2 })
	d.uses(t, strangerUID, "receivers", 2)
	_, err := c.Queue("/q").Receive(within(t), 1, client.ReceiveOptions{Wait: time.Hour})
	exceeded(t, "a third receiver", err)
	if _, err := c.Queue("/q").Receive(within(t), 1, client.ReceiveOptions{}); err != nil {
		t.Errorf("a receive that does not wait: %v", err)
	}
	background(t, d.command(within(t), "ipcctl", "recv", "/q", "--wait", "1h")) // as root
	awaitStats(t, q, "root receives too", func(s client.QueueStats) bool { return s.Receivers == 3 })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	eventually(t, "there is room", func() bool { return d.quotas(t, strangerUID)["receivers"].Used == 1 })
	_ = waits.cmd.Process.Kill()
	eventually(t, "nobody receives", func() bool { return d.quotas(t, strangerUID)["receivers"].Used == 0 })
}

func TestEveryoneSeesTheirOwnQuotasAlone(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	createNamed(t, d.dialAs(t, other), "/theirs", memory())
	d.setQuota(t, other.uid, "--queues", "4")
	var document struct {
		Quotas []struct{ Principal struct{ UID uint32 } }
	}
	unmarshal(t, d.as(t, nil, "ipcctl", "quota", "ls", "-o", "json").ok(t), &document)
	if len(document.Quotas) != 1 || document.Quotas[0].Principal.UID != strangerUID {
		t.Errorf("the stranger sees %+v", document.Quotas)
	}
	d.as(t, nil, "ipcctl", "quota", "set", strconv.Itoa(strangerUID), "--queues", "9").exits(t, 5).says(t, "may not set quotas")
	d.as(t, nil, "ipcctl", "quota", "reset", fmt.Sprint(other.uid)).exits(t, 5)
	for _, wrong := range []string{"set", "set 7", "set 7 --queues -1", "set 7 --queues many", "set 7 --connections 1 --anonymous", "reset"} {
		d.ctl(t, append([]string{"quota"}, strings.Fields(wrong)...)...).exits(t, 2)
	}
}
