package client

import (
	"context"
	"time"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// DaemonInfo is what a daemon tells about itself.
type DaemonInfo struct {
	Version   string
	Instance  string // differs each time the daemon starts
	PID       int
	StartedAt time.Time
	StateDir  string
	Addresses []string // where it listens, as targets of Dial
	Queues    int64
	Messages  int64 // in all queues
	Bytes     int64 // in all queues
	GoVersion string
	Caller    Caller
	Storage   Storage
	// AttachSocket is the path of the socket at which programs on the daemon's host attach to rings; "": none.
	AttachSocket string
	Rings        int64
	// RingMemoryBytes is the memory of all rings' members.
	RingMemoryBytes int64
	TemporaryQueues int64 // among Queues
	// LateRepliesTotal is how many sends came to temporary queues that had ended, since the daemon started.
	LateRepliesTotal int64
}

// Storage is how the daemon's journal fares.
type Storage struct {
	Durable       bool          // there is a journal; without one every queue's durability is memory, and all below is zero
	Segments      int           // files that hold records
	UsedBytes     int64         // of records, those that are no longer needed included
	DiskBytes     int64         // of all files
	LiveBytes     int64         // of records that are needed
	MemoryBytes   int64         // of messages in memory
	CommitsTotal  int64         // groups of records made durable together, since the daemon started
	SyncTimeTotal time.Duration // spent in all syncs, since the daemon started
	SyncTimeMax   time.Duration // the longest sync
	Full          bool          // sends are refused with ErrDiskFull
	Damaged       int           // queues that are read-only because the journal is damaged
	DamagedQueues []string      // those of them that the caller may look at
	Damage        string        // what was found damaged when the daemon began, also where the queues concerned are not known; "": nothing
}

// Caller is an identity as the daemon established it.
type Caller struct {
	Kind   string // "unix", "certificate" or "anonymous"
	Name   string // of a certificate: its SPIFFE ID, else its subject; "" for others
	User   bool   // it is, or acts as, a local user; otherwise UID, GID and Groups mean nothing
	UID    uint32
	GID    uint32
	Groups []uint32
	PID    int  // of a process on the daemon's host; 0: unknown
	Admin  bool // it may do everything
}

func callerOf(p *ipcdv1.Caller) Caller {
	return Caller{
		Kind:   p.GetKind(),
		Name:   p.GetName(),
		User:   p != nil && p.Uid != nil,
		UID:    p.GetUid(),
		GID:    p.GetGid(),
		Groups: p.GetGroups(),
		PID:    int(p.GetPid()),
		Admin:  p.GetAdmin(),
	}
}

// Info returns what the daemon tells about itself.
func (c *Client) Info(ctx context.Context) (DaemonInfo, error) {
	p, err := c.system.GetInfo(ctx, &ipcdv1.GetInfoRequest{})
	if err != nil {
		return DaemonInfo{}, c.rpcError(err, "")
	}
	return DaemonInfo{
		Version:   p.GetVersion(),
		Instance:  p.GetInstance(),
		PID:       int(p.GetPid()),
		StartedAt: timeOf(p.GetStartTime()),
		StateDir:  p.GetStateDir(),
		Addresses: p.GetAddresses(),
		Queues:    int64(p.GetQueues()),
		Messages:  int64(p.GetMessages()),
		Bytes:     int64(p.GetBytes()),
		GoVersion: p.GetGoVersion(),
		Caller:    callerOf(p.GetCaller()),
		Storage:   storageOf(p.GetStorage()),

		AttachSocket:    p.GetAttachSocket(),
		Rings:           count(p.GetRings()),
		RingMemoryBytes: count(p.GetRingMemoryBytes()),
		TemporaryQueues: count(p.GetTemporaryQueues()),

		LateRepliesTotal: count(p.GetLateRepliesTotal()),
	}, nil
}

func storageOf(p *ipcdv1.Storage) Storage {
	return Storage{
		Durable:       p.GetDurable(),
		Segments:      int(p.GetSegments()),
		UsedBytes:     int64(p.GetUsedBytes()),
		DiskBytes:     int64(p.GetDiskBytes()),
		LiveBytes:     int64(p.GetLiveBytes()),
		MemoryBytes:   int64(p.GetMemoryBytes()),
		CommitsTotal:  int64(p.GetCommitsTotal()),
		SyncTimeTotal: p.GetSyncTimeTotal().AsDuration(),
		SyncTimeMax:   p.GetSyncTimeMax().AsDuration(),
		Full:          p.GetFull(),
		Damaged:       int(p.GetDamaged()),
		DamagedQueues: p.GetDamagedQueues(),
		Damage:        p.GetDamage(),
	}
}

// daemonInstance returns the daemon's instance as of the present connection, asking for it where
// it is not known.
func (c *Client) daemonInstance(ctx context.Context) (string, error) {
	seen := c.connections.Load()
	c.instanceMu.Lock()
	instance, current := c.instance, c.instance != "" && c.instanceSeen == seen
	c.instanceMu.Unlock()
	if current {
		return instance, nil
	}
	return c.askInstance(ctx)
}

func (c *Client) askInstance(ctx context.Context) (string, error) {
	p, err := c.system.GetInfo(ctx, &ipcdv1.GetInfoRequest{})
	if err != nil {
		return "", c.rpcError(err, "")
	}
	// The first call connects; that connection is the one that was asked. Should yet another one
	// have been made meanwhile to another instance, then that refuses the batch and is asked in turn.
	c.instanceMu.Lock()
	defer c.instanceMu.Unlock()
	c.instance, c.instanceSeen = p.GetInstance(), c.connections.Load()
	return c.instance, nil
}
