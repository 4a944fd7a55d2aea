package ops

import (
	"context"
	"errors"
	"github.com/ipcd/ipcd/internal/limits"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/identity"
)

// get asks without a network.
func get(s *Server, path string) *httptest.ResponseRecorder {
	r := httptest.NewRecorder()
	s.handler(&net.UnixAddr{Name: "/x", Net: "unix"}).ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
	return r
}

func TestScrapesAtTheSameTimeShareOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lists atomic.Int32
		release := make(chan struct{})
		b := &fakeBroker{}
		s := New(Options{Broker: b})
		b.list = func(context.Context, identity.Identity) ([]broker.Info, error) {
			lists.Add(1)
			<-release
			return nil, nil
		}
		done := make(chan int, 100)
		for range cap(done) {
			go func() { done <- get(s, "/metrics").Code }()
		}
		synctest.Wait()
		close(release)
		for range cap(done) {
			if code := <-done; code != http.StatusOK {
				t.Errorf("status %d", code)
			}
		}
		if lists.Load() != 1 {
			t.Errorf("the queues were listed %d times", lists.Load())
		}
		if get(s, "/metrics"); lists.Load() != 2 {
			t.Errorf("a later scrape got the result of an earlier one")
		}
		s.Stop(context.Background())
	})
}

func TestStuckScrapeIsGivenUpAndNotBegunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lists atomic.Int32
		release := make(chan struct{})
		b := &fakeBroker{}
		s := New(Options{Broker: b})
		b.list = func(context.Context, identity.Identity) ([]broker.Info, error) {
			lists.Add(1)
			<-release
			return nil, nil
		}
		for range 3 {
			began := time.Now()
			if r := get(s, "/metrics"); r.Code != http.StatusServiceUnavailable || !strings.Contains(r.Body.String(), "longer than 10s") || time.Since(began) != limits.ScrapeTimeout {
				t.Errorf("%d %q after %v", r.Code, r.Body, time.Since(began))
			}
		}
		if lists.Load() != 1 {
			t.Errorf("%d scrapes are stuck", lists.Load())
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Stop(ctx) // does not wait for ever
		close(release)
	})
}

func TestHealthCheckThatDoesNotAnswerIsUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int32
		release := make(chan struct{})
		s := New(Options{Health: func(context.Context) error {
			checks.Add(1)
			<-release
			return nil
		}})
		for range 2 {
			if r := get(s, "/healthz"); r.Code != http.StatusServiceUnavailable || !strings.Contains(r.Body.String(), "longer than 5s") {
				t.Errorf("%d %q", r.Code, r.Body)
			}
		}
		if checks.Load() != 1 {
			t.Errorf("%d checks are stuck", checks.Load())
		}
		close(release)
		synctest.Wait()
		if r := get(s, "/healthz"); r.Code != http.StatusOK || checks.Load() != 2 {
			t.Errorf("%d %q after %d checks", r.Code, r.Body, checks.Load())
		}
		s.Stop(context.Background())
	})
}

func TestHealthCheckHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Health: func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("the journal does not move")
		}})
		if r := get(s, "/healthz"); r.Code != http.StatusServiceUnavailable {
			t.Errorf("%d %q", r.Code, r.Body)
		}
		s.Stop(context.Background())
	})
}

func TestStopEndsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{}
		s := New(Options{Broker: b})
		b.list = func(ctx context.Context, _ identity.Identity) ([]broker.Info, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		failed := make(chan error, 1)
		go func() { failed <- s.WriteMetrics(io.Discard) }()
		synctest.Wait()
		s.Stop(context.Background())
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if err := s.WriteMetrics(io.Discard); err == nil || !strings.Contains(err.Error(), "stopping") {
			t.Errorf("after Stop: %v", err)
		}
	})
}

func TestPanicIsAnAnswerAndNotTheEnd(t *testing.T) {
	b := &fakeBroker{}
	s := newServer(t, Options{Health: func(context.Context) error { panic("boom") }, Broker: b})
	b.list = func(context.Context, identity.Identity) ([]broker.Info, error) { panic("boom") }
	for range 2 {
		for _, path := range []string{"/healthz", "/metrics"} {
			if r := get(s, path); r.Code != http.StatusServiceUnavailable || !strings.Contains(r.Body.String(), "internal error") {
				t.Errorf("%s: %d %q", path, r.Code, r.Body)
			}
		}
	}
}
