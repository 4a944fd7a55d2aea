//go:build linux

package systemdtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/client/ring"
)

// runRole is the whole of a process that uses ipcd in the machine. What is to be told goes to stdout, as JSON.
func runRole(role string, arguments []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	roles := map[string]func(context.Context, string) (any, error){"queue": useQueue, "ring": useRing, "kernel": useKernelQueue, "hold": holdConnection, "http": getHTTP}
	report, err := roles[role](ctx, arguments[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		return 1
	}
	return 0
}

// queueReport is how those fared who used a queue.
type queueReport struct {
	Sent        int // and acknowledged
	Received    int // of them
	Lost        []string
	Redelivered []string
	Unexpected  []string // never sent
}

// tellEvery is after how many messages a program says on stderr that it goes on.
const tellEvery = 100

// useQueue sends and receives until it is told to stop, and then receives what is left. The client mends connections;
// any error that it does not keep to itself ends this.
func useQueue(ctx context.Context, name string) (any, error) {
	c, err := client.Dial("")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	q := c.Queue(name)

	var mu sync.Mutex // guards what follows
	sent, received, tried := map[string]bool{}, map[string]int{}, map[string]bool{}
	var report queueReport

	var senders sync.WaitGroup
	failed := make(chan error, 5)
	for i := range 4 {
		senders.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				body := fmt.Sprintf("%d-%d-%d", os.Getpid(), i, n)
				mu.Lock()
				tried[body] = true
				mu.Unlock()
				// Not ctx: what was begun is finished, so that it is known whether it was sent.
				if err := sendOnce(context.Background(), q, body); err != nil {
					failed <- fmt.Errorf("send %s: %w", body, err)
					return
				}
				mu.Lock()
				sent[body] = true
				count := len(sent)
				mu.Unlock()
				if count%tellEvery == 0 {
					fmt.Fprintln(os.Stderr, goesOn)
				}
			}
		})
	}
	consuming, stopConsuming := context.WithCancel(context.Background())
	var consumer sync.WaitGroup
	consumer.Go(func() {
		err := q.Consume(consuming, func(_ context.Context, d *client.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			received[string(d.Body)]++
			return nil
		}, client.ConsumeOptions{OnReconnect: func(error) {}, OnError: func(_ *client.Delivery, err error) { fmt.Fprintln(os.Stderr, "settle:", err) }})
		if err != nil {
			failed <- fmt.Errorf("consume: %w", err)
		}
	})
	senders.Wait()
	deadline := time.Now().Add(patience)
	for {
		mu.Lock()
		left := 0
		for body := range sent {
			if received[body] == 0 {
				left++
			}
		}
		mu.Unlock()
		if left == 0 || time.Now().After(deadline) || len(failed) > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	stopConsuming()
	consumer.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	report.Sent = len(sent)
	for body := range sent {
		if received[body] == 0 {
			report.Lost = append(report.Lost, body)
		}
	}
	for body, times := range received {
		switch {
		case !tried[body]:
			report.Unexpected = append(report.Unexpected, body)
		case times > 1:
			report.Redelivered = append(report.Redelivered, body)
		}
		report.Received++
	}
	return report, nil
}

// sendOnce sends, and again when the daemon has refused because it is stopping: it has not stored it then.
func sendOnce(ctx context.Context, q *client.Queue, body string) error {
	for {
		_, err := q.Send(ctx, client.Message{Body: []byte(body)})
		if !errors.Is(err, client.ErrShuttingDown) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ringReport is how a producer and a consumer of a ring fared.
type ringReport struct {
	Published, Received, Lost uint64
}

// useRing publishes and consumes in a lossless ring until it is told to stop.
func useRing(ctx context.Context, name string) (any, error) {
	p, err := ring.NewProducer(ctx, name, ring.ProducerOptions{})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	c, err := ring.NewConsumer(ctx, name, ring.ConsumerOptions{From: ring.Oldest, Lossless: true})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var report ringReport
	consumed := make(chan error, 1)
	lane := p.Lane()
	consuming, stopConsuming := context.WithCancel(context.Background())
	defer stopConsuming()
	go func() {
		for {
			m, err := c.Next(consuming)
			switch {
			case consuming.Err() != nil:
				for {
					m, ok, err := c.TryNext()
					if err != nil || !ok {
						consumed <- err
						return
					}
					report.count(m, lane)
				}
			case err != nil:
				consumed <- err
				return
			}
			report.count(m, lane)
		}
	}()
	for ctx.Err() == nil {
		if err := p.PublishContext(ctx, 1, []byte("tick")); err != nil {
			if ctx.Err() != nil {
				break
			}
			return nil, err
		}
		if p.Sequence()%tellEvery == 0 {
			fmt.Fprintln(os.Stderr, goesOn)
			time.Sleep(time.Millisecond) // a pace that a slow machine keeps too
		}
	}
	report.Published = p.Sequence()
	stopConsuming()
	return &report, <-consumed
}

func (r *ringReport) count(m ring.Message, lane uint64) {
	if m.Lane == lane {
		r.Received++
		r.Lost += m.Lost
	}
}

// useKernelQueue sends one message with mq_send, and reports the error's name, "" if there was none.
func useKernelQueue(_ context.Context, name string) (any, error) {
	path, err := unix.BytePtrFromString(strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil, err
	}
	fd, err := mqOpen(path)
	if err != nil {
		return err.Error(), nil
	}
	defer unix.Close(fd)
	return "", mqSend(fd, []byte("native"))
}

// holdConnection is a client that does nothing until it is told to stop.
func holdConnection(ctx context.Context, name string) (any, error) {
	c, err := client.Dial("")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Info(ctx); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, goesOn)
	<-ctx.Done()
	return name, nil
}

// getHTTP fetches unix:/path:/page or host:port/page.
func getHTTP(ctx context.Context, address string) (any, error) {
	dialer := new(net.Dialer)
	transport := &http.Transport{DialContext: dialer.DialContext}
	if rest, ok := strings.CutPrefix(address, "unix:"); ok {
		path, page, _ := strings.Cut(rest, ":")
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
		address = "ipcd" + page
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// goesOn is what a program says after some messages.
const goesOn = "goes on"

// program is a process of a role in the machine.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	told  chan struct{} // something for each goesOn
	words chan string   // all that it said besides, once it has ended
	out   strings.Builder
}

// launch starts a role as a user, and waits until it has begun.
func (m *machine) launch(user, role, argument string) *program {
	m.t.Helper()
	p := &program{t: m.t, told: make(chan struct{}), words: make(chan string, 1)}
	p.cmd = m.enter(as(user, "env", roleVariable+"="+role, programPath, argument)...)
	p.cmd.Stdout = &p.out
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	// A program that is still there when its test has failed must not hold up the machine's end.
	m.t.Cleanup(func() {
		if pid, err := p.pid(); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	go func() {
		var words []string
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if lines.Text() != goesOn {
				words = append(words, lines.Text())
				continue
			}
			select {
			case p.told <- struct{}{}:
			default:
			}
		}
		close(p.told)
		p.words <- strings.Join(words, "\n")
	}()
	p.goesOn()
	return p
}

// goesOn waits until the program has got further than it is now.
func (p *program) goesOn() {
	p.t.Helper()
	select {
	case _, running := <-p.told:
		if !running {
			p.t.Fatalf("the program has ended: %s", <-p.words)
		}
	case <-time.After(patience):
		p.t.Fatal("the program does not go on")
	}
}

// pid returns the program's, as the host sees it. nsenter forks for the PID namespace; its child is the program.
func (p *program) pid() (int, error) {
	nsenter := p.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nsenter, nsenter))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(children)))
}

// stop ends the program in order, and reads its report.
func (p *program) stop(report any) {
	p.t.Helper()
	pid, err := p.pid()
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGTERM)
	}
	if err != nil {
		p.t.Fatalf("the program has ended already: %v: %s", err, <-p.words)
	}
	for range p.told { // until it has ended
	}
	words := <-p.words
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("%v: %s", err, words)
	}
	if err := json.Unmarshal([]byte(p.out.String()), report); err != nil {
		p.t.Fatalf("report %q: %v", p.out.String(), err)
	}
}

// stopQueue ends a program that uses a queue, and says what it missed.
func (p *program) stopQueue() {
	p.t.Helper()
	var r queueReport
	p.stop(&r)
	progress("%s: %d messages sent, %d received", p.t.Name(), r.Sent, r.Received)
	if r.Sent == 0 || len(r.Lost) > 0 || len(r.Redelivered) > 0 || len(r.Unexpected) > 0 {
		p.t.Errorf("of %d messages that were acknowledged %d are lost (%.10q), %d came more than once (%.10q), %d were never sent (%.10q)",
			r.Sent, len(r.Lost), r.Lost, len(r.Redelivered), r.Redelivered, len(r.Unexpected), r.Unexpected)
	}
}

// once runs a role to its end, and reads its report.
func (m *machine) once(user, role, argument string, report any) {
	m.t.Helper()
	output := m.run(as(user, "env", roleVariable+"="+role, programPath, argument)...)
	if err := json.Unmarshal([]byte(output), report); err != nil {
		m.t.Fatalf("report %q: %v", output, err)
	}
}
