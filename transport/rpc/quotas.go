package rpc

import (
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// ListQuotas shows an admin what everybody uses, and others what they use themselves.
func (s system) ListQuotas(_ *ipcdv1.ListQuotasRequest, stream grpc.ServerStreamingServer[ipcdv1.ListQuotasResponse]) error {
	if s.quotas == nil {
		return s.without("quotas")
	}
	caller := callerFrom(stream.Context())
	var all []quota.Usage
	if s.access.Admin(caller) {
		all = s.quotas.All()
	} else {
		all = []quota.Usage{s.quotas.Usage(caller.Principal())}
	}
	for _, u := range all {
		if err := stream.Send(&ipcdv1.ListQuotasResponse{Principal: encodePrincipal(u.Who), Quotas: encodeQuotas(u)}); err != nil {
			return streamEnded{err}
		}
	}
	return nil
}

// SetQuota sets limits of an identity.
func (s system) SetQuota(ctx context.Context, r *ipcdv1.SetQuotaRequest) (*ipcdv1.SetQuotaResponse, error) {
	if err := s.access.CheckAdmin(callerFrom(ctx), "set quotas"); err != nil {
		return nil, err
	}
	if s.quotas == nil {
		return nil, s.without("quotas")
	}
	who, err := decodePrincipal(r.Principal)
	if err != nil {
		return nil, err
	}
	edit, err := decodeLimits(r)
	if err != nil {
		return nil, err
	}
	usage, err := s.quotas.Change(who, edit)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.SetQuotaResponse{Quotas: encodeQuotas(usage)}, nil
}

func decodePrincipal(from *ipcdv1.Principal) (identity.Principal, error) {
	switch kind := from.GetKind().(type) {
	case *ipcdv1.Principal_Uid:
		return identity.User(kind.Uid), nil
	case *ipcdv1.Principal_Certificate:
		if n := len(kind.Certificate); n == 0 || n > limits.CertificateNameLength {
			return identity.Principal{}, reason.Invalid("principal.certificate", "a certificate's name of %d bytes: it must have 1 to %d", n, limits.CertificateNameLength)
		}
		return identity.Principal{Kind: identity.Certificate, Name: kind.Certificate}, nil
	case *ipcdv1.Principal_Anonymous:
		if kind.Anonymous {
			return identity.Principal{}, nil
		}
	}
	return identity.Principal{}, reason.Invalid("principal", "nobody is named: name a uid, a certificate, or anonymous callers with true")
}

func encodePrincipal(p identity.Principal) *ipcdv1.Principal {
	switch p.Kind {
	case identity.Unix:
		return &ipcdv1.Principal{Kind: &ipcdv1.Principal_Uid{Uid: p.UID}}
	case identity.Certificate:
		return &ipcdv1.Principal{Kind: &ipcdv1.Principal_Certificate{Certificate: p.Name}}
	}
	return &ipcdv1.Principal{Kind: &ipcdv1.Principal_Anonymous{Anonymous: true}}
}

// decodeLimits returns what a request does to what operators have set. Each resource may be named once.
func decodeLimits(r *ipcdv1.SetQuotaRequest) (edit func(quota.Limits), err error) {
	set := quota.Limits{}
	reset := map[quota.Resource]bool{}
	resource := func(field, name string) (quota.Resource, error) {
		q, ok := quota.Named(name)
		if !ok {
			return q, reason.Invalid(field, "no resource is called %.40q: there are %s", name, resourceNames())
		}
		if _, twice := set[q]; twice || reset[q] {
			return q, reason.Invalid(field, "%s is named twice: say one thing of each resource", q)
		}
		return q, nil
	}
	for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
		q, err := resource("limits", name)
		if err != nil {
			return nil, err
		}
		if r.Limits[name] < 0 {
			return nil, reason.Invalid("limits", "%s %d: a limit is 0 or more; for none name the resource in `unlimited`", q, r.Limits[name])
		}
		set[q] = r.Limits[name]
	}
	for _, name := range r.Unlimited {
		q, err := resource("unlimited", name)
		if err != nil {
			return nil, err
		}
		set[q] = quota.Unlimited
	}
	for _, name := range r.Reset_ {
		q, err := resource("reset", name)
		if err != nil {
			return nil, err
		}
		reset[q] = true
	}
	if len(set) == 0 && len(reset) == 0 {
		return nil, reason.Invalid("limits", "nothing to change: name resources in `limits`, `unlimited` or `reset`, of %s", resourceNames())
	}
	return func(l quota.Limits) {
		maps.Copy(l, set)
		for q := range reset {
			delete(l, q)
		}
	}, nil
}

func resourceNames() string {
	var names []string
	for _, q := range quota.Resources() {
		names = append(names, q.String())
	}
	return strings.Join(names, ", ")
}

func encodeQuotas(u quota.Usage) []*ipcdv1.Quota {
	var out []*ipcdv1.Quota
	for _, e := range u.Entries {
		q := &ipcdv1.Quota{Resource: e.Resource.String(), Used: e.Used, Source: string(e.Source)}
		if e.Limit != quota.Unlimited {
			q.Limit = &e.Limit
		}
		out = append(out, q)
	}
	return out
}
