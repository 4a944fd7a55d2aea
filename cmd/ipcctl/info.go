package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/version"
)

// infoView is what info shows as json and yaml.
type infoView struct {
	Version   string     `json:"version"`
	Instance  string     `json:"instance"`
	PID       int        `json:"pid"`
	StartTime string     `json:"start_time"`
	StateDir  string     `json:"state_dir"`
	Addresses []string   `json:"addresses"`
	Queues    int64      `json:"queues"`
	Messages  int64      `json:"messages"`
	Bytes     int64      `json:"bytes"`
	GoVersion string     `json:"go_version"`
	Caller    callerView `json:"caller"`
}

type callerView struct {
	Kind   string   `json:"kind"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
	PID    int      `json:"pid"`
}

func newInfo(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the daemon: version, addresses, what it holds, who it takes you for",
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
			switch output {
			case "json":
				err = writeInfoJSON(&b, d)
			case "yaml":
				err = writeYAML(&b, viewInfo(d))
			default:
				a.writeInfo(&b, d, c.Target())
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
		Caller: callerView{Kind: d.Caller.Kind, UID: d.Caller.UID, GID: d.Caller.GID, Groups: append([]uint32{}, d.Caller.Groups...), PID: d.Caller.PID},
	}
}

func writeInfoJSON(b *bytes.Buffer, d client.DaemonInfo) error {
	text, err := marshalJSON(viewInfo(d))
	if err != nil {
		return err
	}
	if err := json.Indent(b, text, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	return nil
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
	r.line("process", "%d, up %s", d.PID, humanDuration(max(0, time.Since(d.StartedAt))))
	r.line("instance", "%s", escapeLine(d.Instance))
	r.line("state directory", "%s", escapeLine(d.StateDir))
	r.line("holds", "%s, %s, %s", count(d.Queues, "queue"), count(d.Messages, "message"), humanBytes(uint64(d.Bytes)))
	r.line("built with", "%s", escapeLine(d.GoVersion))
	caller := d.Caller.Kind
	if d.Caller.Kind == "unix" {
		caller = fmt.Sprintf("%s:%s (uid %d, gid %d)", userName(d.Caller.UID), groupName(d.Caller.GID), d.Caller.UID, d.Caller.GID)
	}
	r.line("takes you for", "%s", escapeLine(caller))
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
