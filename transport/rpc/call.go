package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport"
)

// CallObserver is told of every call that has ended: its method, such as "ipcd.v1.MessageService/Send", or "unknown";
// its code as of codes.Code.String; and how long it took.
type CallObserver interface {
	Call(method, code string, took time.Duration)
}

// unknownMethodName stands for methods that there are not: callers could think up any number of them.
const unknownMethodName = "unknown"

// call is a call under way.
type call struct {
	conn   *connection
	method string // as CallObserver is told
	since  time.Time

	arrival *arrival // of its requests; nil: it is not counted

	// Guarded by conn.mu.
	name        string        // of the queue or ring; "": it names none
	outstanding func() uint64 // how many messages are delivered and not settled; nil: none are
	ringMember  uint64        // as which it reads a ring; 0: it does not
}

type callKey struct{}

// callOf returns the call that a handler's context is of.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// on says which queue or ring the call is about. What cannot be a name is not kept.
func (c *call) on(name string) {
	if c == nil || len(name) > limits.NameLength+1 {
		return
	}
	c.conn.mu.Lock()
	c.name = name
	c.conn.mu.Unlock()
}

// delivers says how to learn how many messages are out.
func (c *call) delivers(outstanding func() uint64) {
	if c == nil {
		return
	}
	c.conn.mu.Lock()
	c.outstanding = outstanding
	c.conn.mu.Unlock()
}

// reads says as which member the call reads a ring.
func (c *call) reads(member uint64) {
	if c == nil {
		return
	}
	c.conn.mu.Lock()
	c.ringMember = member
	c.conn.mu.Unlock()
}

// onRequest finds the queue or ring in a request's fields.
func (c *call) onRequest(request any) {
	switch r := request.(type) {
	case interface{ GetQueue() string }:
		c.on(r.GetQueue())
	case interface{ GetRing() string }:
		c.on(r.GetRing())
	case interface{ GetName() string }:
		c.on(r.GetName())
	case interface{ GetSource() string }:
		c.on(r.GetSource())
	}
}

// begin charges a call to its caller, before anything of it is read, or returns the status that refuses it. The
// context is the handler's. end must follow if there was no error.
func (s *Server) begin(ctx context.Context, fullMethod string) (context.Context, *call, error) {
	conn := connectionOf(ctx)
	if conn.userAgent.Load() == nil {
		agent := ""
		if values := metadata.ValueFromIncomingContext(ctx, "user-agent"); len(values) > 0 {
			agent = transport.Printable(values[0][:min(len(values[0]), limits.UserAgentLength)])
		}
		conn.userAgent.Store(&agent)
	}
	c := &call{conn: conn, method: s.methodName(fullMethod), since: time.Now(), arrival: arrivalOf(ctx)}
	err := conn.refused
	if err == nil && conn.account != nil {
		if over := conn.account.Take(quota.Streams, 1); over != nil {
			err = s.toStatus(fullMethod, over)
		}
	}
	if err != nil {
		c.arrival.over()
		s.observe(c, err)
		return nil, nil, err
	}
	conn.mu.Lock()
	conn.calls[c] = struct{}{}
	conn.mu.Unlock()
	return context.WithValue(ctx, callKey{}, c), c, nil
}

// end gives back what begin charged. err is the call's status, nil for OK.
func (s *Server) end(c *call, err error) {
	conn := c.conn
	c.arrival.over()
	conn.mu.Lock()
	delete(conn.calls, c)
	conn.mu.Unlock()
	conn.ended.Add(1)
	if conn.account != nil {
		conn.account.Add(quota.Streams, -1)
	}
	s.observe(c, err)
}

func (s *Server) observe(c *call, err error) {
	if s.observer != nil {
		s.observer.Call(c.method, status.Code(err).String(), time.Since(c.since))
	}
}

func (s *Server) methodName(fullMethod string) string {
	if name, ok := s.methods[fullMethod]; ok {
		return name
	}
	return unknownMethodName
}

// connectionOf returns the connection that a call came over.
func connectionOf(ctx context.Context) *connection {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(callerInfo); ok {
			return info.conn
		}
	}
	return nil
}

// registrar registers services whose calls begin and end. Streams do so in interceptStream. gRPC calls a unary
// interceptor only once the request is in memory, and not at all if it cannot be read: here it is not read yet.
type registrar struct {
	*grpc.Server
	server *Server
}

// RegisterService registers a service.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	counted := *desc
	counted.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		fullMethod := "/" + desc.ServiceName + "/" + m.MethodName
		r.server.methods[fullMethod] = fullMethod[1:]
		counted.Methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: r.server.counted(fullMethod, m.Handler)}
	}
	for _, m := range desc.Streams {
		fullMethod := "/" + desc.ServiceName + "/" + m.StreamName
		r.server.methods[fullMethod] = fullMethod[1:]
	}
	r.Server.RegisterService(&counted, impl)
}

func (s *Server) counted(fullMethod string, handle grpc.MethodHandler) grpc.MethodHandler {
	return func(impl any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (response any, err error) {
		ctx, c, err := s.begin(ctx, fullMethod)
		if err != nil {
			return nil, err
		}
		defer func() { s.end(c, err) }()
		arrive := func(m any) error {
			r := received{message: m}
			complete := c.within()
			err := decode(&r)
			complete()
			c.arrival.taken(int64(r.bytes))
			return err
		}
		err = s.guard(fullMethod, func() (err error) {
			response, err = handle(impl, ctx, arrive, interceptor)
			return err
		})
		if e, ok := err.(*reason.Error); ok { // of a panic; all else the interceptor, or gRPC, has put into a status
			return nil, statusOf(e).Err()
		}
		return response, err
	}
}
