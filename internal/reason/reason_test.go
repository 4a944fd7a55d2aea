package reason

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// TestTableIsAsPromised compares with the list in the contract, which clients and scripts rely on.
func TestTableIsAsPromised(t *testing.T) {
	for reason, want := range map[Reason]Row{
		QueueNotFound:      {codes.NotFound, 3, "ENOENT"},
		QueueExists:        {codes.AlreadyExists, 1, "EEXIST"},
		QueueFull:          {codes.ResourceExhausted, 1, "EAGAIN"},
		QuotaExceeded:      {codes.ResourceExhausted, 1, "EDQUOT"},
		MessageTooLarge:    {codes.InvalidArgument, 1, "EMSGSIZE"},
		BufferTooSmall:     {codes.OutOfRange, 1, "E2BIG"},
		StaleReceipt:       {codes.FailedPrecondition, 1, "ESTALE"},
		DurabilityMismatch: {codes.FailedPrecondition, 1, "EINVAL"},
		QueueDeleted:       {codes.Aborted, 3, "EIDRM"},
		AccessDenied:       {codes.PermissionDenied, 5, "EACCES"},
		DiskFull:           {codes.ResourceExhausted, 1, "ENOSPC"},
		KernelLimit:        {codes.ResourceExhausted, 1, "EMFILE"},
		TimedOut:           {codes.DeadlineExceeded, 6, "ETIMEDOUT"},
		Unhealthy:          {codes.Unavailable, 4, "EIO"},
	} {
		if got := reason.Lookup(); got != want {
			t.Errorf("%s: %+v, want %+v", reason, got, want)
		}
	}
}

func TestEveryReasonHasARow(t *testing.T) {
	source, err := os.ReadFile("reason.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^\t\w+ +Reason = "([A-Z_]+)"`).FindAllSubmatch(source, -1)
	if len(declared) < 20 || len(declared) != len(table) {
		t.Fatalf("%d reasons are declared, %d have a row", len(declared), len(table))
	}
	for _, d := range declared {
		row, ok := table[Reason(d[1])]
		if !ok || row.Code == codes.OK || row.Exit == 0 || row.Errno == "" {
			t.Errorf("%s: row %+v", d[1], row)
		}
	}
}

func TestUnknownReasonIsInternal(t *testing.T) {
	if got := Reason("SOMETHING_NEW").Lookup(); got.Exit != 70 || got.Code != codes.Internal {
		t.Errorf("%+v", got)
	}
	if got := Of(errors.New("broken")); got != Internal {
		t.Errorf("%q", got)
	}
	if got := Of(nil); got != "" {
		t.Errorf("%q", got)
	}
}

func TestErrorKeepsItsParticulars(t *testing.T) {
	err := fmt.Errorf("sending: %w", New(QueueFull, "holds %d", 3).On("/q").At(2).Retry(time.Second))
	var e *Error
	if !errors.As(err, &e) || e.RetryAfter != time.Second || e.Index != 2 || Of(err) != QueueFull {
		t.Fatalf("%+v", e)
	}
	if got, want := e.Error(), "/q: [2] holds 3"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if e.On("/other"); e.Queue != "/q" {
		t.Errorf("the queue became %s", e.Queue)
	}
	if !errors.Is(err, New(QueueFull, "")) || errors.Is(err, New(QuotaExceeded, "")) {
		t.Error("errors.Is does not go by the reason")
	}
	if got := Invalid("ttl", "no"); got.Field != "ttl" || got.Reason != InvalidArgument || got.Index != Whole {
		t.Errorf("%+v", got)
	}
}
