package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/version"
)

// infoView is what info shows as json and yaml.
type infoView struct {
	Version   string      `json:"version"`
	Instance  string      `json:"instance"`
	PID       int         `json:"pid"`
	StartTime string      `json:"start_time"`
	StateDir  string      `json:"state_dir"`
	Addresses []string    `json:"addresses"`
	Queues    int64       `json:"queues"`
	Messages  int64       `json:"messages"`
	Bytes     int64       `json:"bytes"`
	GoVersion string      `json:"go_version"`
	Caller    callerView  `json:"caller"`
	Storage   storageView `json:"storage"`

	AttachSocket    string `json:"attach_socket,omitempty"` // absent: there is none
	Rings           int64  `json:"rings"`
	RingMemoryBytes int64  `json:"ring_memory_bytes"`

	TemporaryQueues  int64 `json:"temporary_queues"`
	LateRepliesTotal int64 `json:"late_replies_total"`
}

type storageView struct {
	Durable       bool     `json:"durable"`
	Segments      int      `json:"segments"`
	UsedBytes     int64    `json:"used_bytes"`
	DiskBytes     int64    `json:"disk_bytes"`
	LiveBytes     int64    `json:"live_bytes"`
	MemoryBytes   int64    `json:"memory_bytes"`
	CommitsTotal  int64    `json:"commits_total"`
	SyncTimeTotal string   `json:"sync_time_total"`
	SyncTimeMax   string   `json:"sync_time_max"`
	Full          bool     `json:"full"`
	Damaged       int      `json:"damaged"`
	DamagedQueues []string `json:"damaged_queues"`
	Damage        string   `json:"damage"`
}

type callerView struct {
	Kind   string   `json:"kind"`
	UID    *uint32  `json:"uid"` // null, as gid: it is no user of the daemon's host, and acts as none
	GID    *uint32  `json:"gid"`
	Groups []uint32 `json:"groups"`
	PID    int      `json:"pid"`
	Name   string   `json:"name,omitempty"` // of a certificate
	Admin  bool     `json:"admin"`
}

func viewCaller(c client.Caller) callerView {
	v := callerView{Kind: c.Kind, Groups: append([]uint32{}, c.Groups...), PID: c.PID, Name: c.Name, Admin: c.Admin}
	if c.User {
		v.UID, v.GID = &c.UID, &c.GID
	}
	return v
}

func newInfo(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the daemon: version, addresses, what it holds, how its journal fares, who it takes you for",
		Example: `  ipcctl info
  ipcctl info -o json
  ipcctl info --address /run/ipcd/ipcd.sock`,
		Args: noArgs,
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			d, err := c.Info(ctx)
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if output == "text" {
				a.writeInfo(&b, d, c.Target())
			} else {
				err = writeDocument(&b, output, viewInfo(d))
			}
			if err != nil {
				return err
			}
			return a.print(b.String())
		}),
	}
	addOutput(cmd, &output, "text", "json", "yaml")
	return cmd
}

func viewInfo(d client.DaemonInfo) infoView {
	return infoView{
		Version: d.Version, Instance: d.Instance, PID: d.PID, StartTime: machineTime(d.StartedAt), StateDir: d.StateDir,
		Addresses: append([]string{}, d.Addresses...), Queues: d.Queues, Messages: d.Messages, Bytes: d.Bytes, GoVersion: d.GoVersion,
		Caller:  viewCaller(d.Caller),
		Storage: viewStorage(d.Storage), AttachSocket: d.AttachSocket, Rings: d.Rings, RingMemoryBytes: d.RingMemoryBytes,
		TemporaryQueues: d.TemporaryQueues, LateRepliesTotal: d.LateRepliesTotal,
	}
}

func viewStorage(s client.Storage) storageView {
	return storageView{
		Durable: s.Durable, Segments: s.Segments, UsedBytes: s.UsedBytes, DiskBytes: s.DiskBytes, LiveBytes: s.LiveBytes, MemoryBytes: s.MemoryBytes,
		CommitsTotal: s.CommitsTotal, SyncTimeTotal: machineDuration(s.SyncTimeTotal), SyncTimeMax: machineDuration(s.SyncTimeMax),
		Full: s.Full, Damaged: s.Damaged, DamagedQueues: append([]string{}, s.DamagedQueues...), Damage: s.Damage,
	}
}

func (a *app) writeInfo(b *bytes.Buffer, d client.DaemonInfo, target string) {
	r := report{a, b}
	addresses := make([]string, len(d.Addresses))
	for i, address := range d.Addresses {
		addresses[i] = escapeLine(address)
	}
	r.section("ipcd " + escapeLine(d.Version))
	r.line("reached at", "%s", escapeLine(target))
	r.line("listens at", "%s", strings.Join(addresses, " "))
	if d.AttachSocket != "" {
		r.line("attach to rings at", "%s", escapeLine(d.AttachSocket))
	}
	r.line("process", "%d, up %s", d.PID, humanDuration(max(0, time.Since(d.StartedAt))))
	r.line("instance", "%s", escapeLine(d.Instance))
	r.line("state directory", "%s", escapeLine(d.StateDir))
	r.line("holds", "%s, %s, %s", count(d.Queues, "queue"), count(d.Messages, "message"), humanBytes(uint64(d.Bytes)))
	r.line("temporary queues", "%d; %s too late, for queues that had ended", d.TemporaryQueues, lateText(d.LateRepliesTotal))
	r.line("rings", "%d, their members take %s of memory", d.Rings, humanBytes(uint64(d.RingMemoryBytes)))
	writeStorage(r, d.Storage)
	r.line("built with", "%s", escapeLine(d.GoVersion))
	r.line("takes you for", "%s", whoText(d.Caller))
}

// lateText counts replies that came too late.
func lateText(n int64) string {
	if n == 1 {
		return "1 reply came"
	}
	return fmt.Sprintf("%d replies came", n)
}

// whoText says all about who the daemon takes the caller for.
func whoText(c client.Caller) string {
	text := escapeLine(c.Kind)
	if c.Name != "" {
		text += " " + escapeLine(c.Name)
	}
	if c.User {
		user := fmt.Sprintf("%s:%s (uid %d, gid %d)", userName(c.UID), groupName(c.GID), c.UID, c.GID)
		if text == "unix" {
			text = user
		} else {
			text += ", acting as " + user
		}
	}
	if c.Admin {
		text += ", an admin"
	}
	return text
}

func writeStorage(r report, s client.Storage) {
	if !s.Durable {
		r.line("journal", "none: messages are in memory only")
		return
	}
	r.line("journal", "%s in %s, %s of it needed; %s on disk", humanBytes(uint64(s.UsedBytes)), count(s.Segments, "segment"), humanBytes(uint64(s.LiveBytes)), humanBytes(uint64(s.DiskBytes)))
	r.line("messages in memory", "%s", humanBytes(uint64(s.MemoryBytes)))
	if s.CommitsTotal > 0 {
		mean := s.SyncTimeTotal / time.Duration(s.CommitsTotal)
		r.line("commits", "%d, a sync took %v on average, %v at most", s.CommitsTotal, mean.Round(time.Microsecond), s.SyncTimeMax.Round(time.Microsecond))
	}
	if s.Full {
		r.line("disk full", "sends are refused until there is room")
	}
	if s.Damaged > 0 {
		names := make([]string, len(s.DamagedQueues))
		for i, name := range s.DamagedQueues {
			names[i] = escapeLine(name)
		}
		r.line("damaged", "%s read-only %s", count(s.Damaged, "queue"), strings.Join(names, " "))
	}
	if s.Damage != "" {
		r.line("damage found", "%s", escapeLine(s.Damage))
	}
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show ipcctl's own version",
		Example: "  ipcctl version",
		Args:    noArgs,
		RunE: a.short(func(context.Context, *cobra.Command, []string) error {
			return a.print("ipcctl " + version.String() + "\n")
		}),
	}
}
