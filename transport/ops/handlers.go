package ops

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

// handler serves the paths at an address. Methods other than GET and HEAD are refused by the patterns.
func (s *Server) handler(at net.Addr) http.Handler {
	profiles, loopback := local(at), isLoopback(at)
	mux := http.NewServeMux()
	index := "/metrics       metrics, as docs/metrics.md describes them\n" +
		"/healthz       200 if the daemon works, 503 and why if not\n" +
		"/readyz        200 if calls are served, 503 and why if not\n"
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /readyz", s.serveReady)
	if profiles {
		index += "/debug/pprof/  profiles, for go tool pprof\n"
		mux.HandleFunc("GET /debug/pprof/", bounded(pprof.Index))
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", bounded(pprof.Profile))
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", bounded(pprof.Trace))
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "ipcd "+s.o.Version+"\n\n"+index)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.serving(r)()
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if loopback && !loopbackHost(r.Host) {
			answer(w, http.StatusMisdirectedRequest, fmt.Sprintf("the host %.200q is not known here: ask for localhost, 127.0.0.1 or [::1]\n", r.Host))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// loopbackHost reports whether a request means this host. A page in somebody's browser may have its own name resolved to
// loopback, and would then be let in as coming from there; the name that it asked for gives it away.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // who does not listen learns nothing
}

// serveMetrics writes a text that nobody else has to wait for: a slow reader holds nothing but it.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	text, err := s.scrape(r.Context())
	if err != nil {
		answer(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text)
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if err := s.check(r.Context()); err != nil {
		answer(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	answer(w, http.StatusOK, "ok\n")
}

// check asks whether the daemon works.
func (s *Server) check(ctx context.Context) error {
	if s.o.Health == nil {
		return nil
	}
	_, err := s.checking.do(ctx, s, limits.HealthTimeout, "the health check", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.o.Health(ctx)
	})
	return err
}

// serveReady says what Options.Ready says: the daemon serves calls, and its last look at itself found nothing wrong.
func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.ready(); err != nil {
		answer(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	answer(w, http.StatusOK, "ready\n")
}

func (s *Server) ready() error {
	if s.o.Ready == nil {
		return nil
	}
	return s.o.Ready()
}

// bounded refuses profiles that go on for too long.
func bounded(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if text := r.FormValue("seconds"); text != "" {
			seconds, err := strconv.ParseFloat(text, 64)
			if err != nil || !(seconds >= 0 && seconds <= limits.ProfileMax.Seconds()) {
				answer(w, http.StatusBadRequest, fmt.Sprintf("seconds=%.20q: it must be a number from 0 to %d\n", text, limits.ProfileMax/time.Second))
				return
			}
		}
		serve(w, r)
	}
}
