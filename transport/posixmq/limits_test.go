package posixmq

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestGeometryDefaults_S28(t *testing.T) {
	most := kernelLimit(msgSizeMax)
	for _, c := range []struct {
		k       queue.KernelQueue
		maxSize int
		want    Geometry
	}{
		{queue.KernelQueue{}, 16 << 20, Geometry{10, most}},
		{queue.KernelQueue{}, 100, Geometry{10, 100}},
		{queue.KernelQueue{}, 0, Geometry{10, 1}},
		{queue.KernelQueue{TypePrefix: true}, 100, Geometry{10, 108}},
		{queue.KernelQueue{TypePrefix: true}, most - 3, Geometry{10, most}},
		{queue.KernelQueue{MaxMessages: 3, MessageSize: 50}, 100, Geometry{3, 50}},
		{queue.KernelQueue{MaxMessages: 70000, MessageSize: 1 << 24}, 100, Geometry{70000, 1 << 24}},
	} {
		if got := WantedGeometry(c.k, c.maxSize); got != c.want {
			t.Errorf("%+v with bodies of %d: %+v, want %+v", c.k, c.maxSize, got, c.want)
		}
	}
}

func TestLimitInTheWayIsNamed_S31(t *testing.T) {
	most := kernelLimit(msgMax)
	for _, c := range []struct {
		err    error
		g      Geometry
		reason reason.Reason
		says   []string
	}{
		{unix.EMFILE, Geometry{10, 8192}, reason.KernelLimit, []string{"RLIMIT_MSGQUEUE", rlimit(unix.RLIMIT_MSGQUEUE), "82880", "LimitMSGQUEUE"}},
		{unix.ENOSPC, Geometry{10, 10}, reason.KernelLimit, []string{"queues_max", fmt.Sprint(kernelLimit(queuesMax)), "sysctl"}},
		{unix.EINVAL, Geometry{most + 1, 10}, reason.KernelLimit, []string{"msg_max", fmt.Sprint(most), "sysctl"}},
		{unix.EINVAL, Geometry{1, kernelLimit(msgSizeMax) + 1}, reason.KernelLimit, []string{"msgsize_max", fmt.Sprint(kernelLimit(msgSizeMax)), "sysctl"}},
		{unix.ENOSYS, Geometry{1, 1}, reason.KernelLimit, []string{"CONFIG_POSIX_MQUEUE"}},
		{unix.EEXIST, Geometry{1, 1}, reason.KernelNameTaken, []string{"/x"}},
		{unix.EACCES, Geometry{1, 1}, reason.AccessDenied, []string{"/x"}},
	} {
		e := Explain(c.err, "/x", c.g)
		if e.Reason != c.reason {
			t.Errorf("%v: %s, want %s", c.err, e.Reason, c.reason)
		}
		for _, word := range c.says {
			if !strings.Contains(e.Message, word) {
				t.Errorf("%v: %q does not say %s", c.err, e.Message, word)
			}
		}
	}
}

func TestKernelChargesWhatCostSays_S31(t *testing.T) {
	g := Geometry{4, 100}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MSGQUEUE, &before); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_MSGQUEUE, &before)
	if err := unix.Setrlimit(unix.RLIMIT_MSGQUEUE, &unix.Rlimit{Cur: uint64(g.cost()) - 1, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	m, err := Create("/ipcd-test-too-dear", g)
	if err == nil {
		m.Unlink()
		m.Close()
	}
	if e := Explain(err, "/x", g); e.Reason != reason.KernelLimit || !strings.Contains(e.Message, fmt.Sprintf("RLIMIT_MSGQUEUE, which is %d", g.cost()-1)) {
		t.Fatalf("%v: %v", err, e)
	}
}
