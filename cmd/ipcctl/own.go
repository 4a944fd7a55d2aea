package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// ownership is to whom a queue or ring belongs, and who else may use it; in a change, nil leaves it as it is.
type ownership struct{ uid, gid, mode *uint32 }

// fields returns what is to be changed, by its names in the protobuf schema.
func (o ownership) fields() []string {
	var fields []string
	for _, f := range []struct {
		name  string
		value *uint32
	}{{"owner_uid", o.uid}, {"group_gid", o.gid}, {"mode", o.mode}} {
		if f.value != nil {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// owned is a kind of thing that has an ownership: queues or rings.
type owned struct {
	thing   string    // "queue"
	command string    // "ipcctl", "ipcctl ring"
	example [2]string // names
	charged string    // who pays for what it holds
	args    func(atLeast, atMost int) cobra.PositionalArgs
	names   completer
	// patterns: a word may be one.
	patterns bool
	get      func(c *client.Client, ctx context.Context, name string) (ownership, error)
	set      func(c *client.Client, ctx context.Context, name string, to ownership) (ownership, error)
}

func (a *app) ownedQueues() owned {
	of := func(q client.QueueInfo, err error) (ownership, error) {
		return ownership{q.Settings.OwnerUID, q.Settings.GroupGID, q.Settings.Mode}, err
	}
	return owned{
		thing: "queue", command: "ipcctl", example: [2]string{"/jobs", "/jobs.dead"},
		charged: "The queue and the messages in it are charged to its owner's quota", args: queueArgs, names: a.completeQueues(anyNumber), patterns: true,
		get: func(c *client.Client, ctx context.Context, name string) (ownership, error) {
			return of(c.GetQueue(ctx, name))
		},
		set: func(c *client.Client, ctx context.Context, name string, to ownership) (ownership, error) {
			return of(c.UpdateQueue(ctx, name, client.QueueSettings{OwnerUID: to.uid, GroupGID: to.gid, Mode: to.mode}, to.fields()...))
		},
	}
}

func (a *app) ownedRings() owned {
	of := func(r client.RingInfo, err error) (ownership, error) {
		return ownership{r.Settings.OwnerUID, r.Settings.GroupGID, r.Settings.Mode}, err
	}
	return owned{
		thing: "ring", command: "ipcctl ring", example: [2]string{"/ticks", "/quotes"},
		charged: "The ring counts against its owner's quota of rings; its memory is charged to the users whose programs attach", args: ringArgs, names: a.completeRings(anyNumber),
		get: func(c *client.Client, ctx context.Context, name string) (ownership, error) {
			return of(c.GetRing(ctx, name))
		},
		set: func(c *client.Client, ctx context.Context, name string, to ownership) (ownership, error) {
			return of(c.UpdateRing(ctx, name, client.RingSettings{OwnerUID: to.uid, GroupGID: to.gid, Mode: to.mode}, to.fields()...))
		},
	}
}

// wordAndNames wants a word, such as a mode, and names.
func (o *owned) wordAndNames(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("give %s and a %s, as in: %s; see %s --help", what, o.thing, strings.SplitN(strings.TrimSpace(cmd.Example), "\n", 2)[0], cmd.CommandPath())
		}
		return o.args(1, anyNumber)(cmd, args[1:])
	}
}

// completeNames completes the names that follow a word, which first completes.
func (o *owned) completeNames(first completer) completer {
	return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return first(cmd, args, begin)
		}
		return o.names(cmd, args[1:], begin)
	}
}

func newChown(a *app, o owned) *cobra.Command {
	return &cobra.Command{
		Use:   "chown USER[:[GROUP]]|:GROUP " + strings.ToUpper(o.thing) + "...",
		Short: "Give " + o.thing + "s to another owner or group",
		Long: fmt.Sprintf(`Change the owner, the group or both of %[1]ss. Users and groups are names that this host knows, or numbers; USER:
is the user with the login group. Only admins (root, the daemon's user and members of its admin_group) may change the
owner. The owner, and whom a rule lets manage the %[1]s, may give it to a group of their own.

%[2]s.
The change is in force at once, for those too who use the %[1]s at the time.`, o.thing, o.charged),
		Example: fmt.Sprintf("  %[1]s chown alice %[2]s\n  %[1]s chown alice:staff %[2]s %[3]s\n  %[1]s chown :staff %[2]s", o.command, o.example[0], o.example[1]),
		Args:    o.wordAndNames("an owner"),
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			to, err := parseOwner(args[0])
			if err != nil {
				return err
			}
			return a.own(ctx, o, args[1:], func(*client.Client, string) (ownership, error) { return to, nil }, func(now ownership) string {
				return fmt.Sprintf("belongs to %s:%s", userName(value(now.uid)), groupName(value(now.gid)))
			})
		}),
		ValidArgsFunction: o.completeNames(a.completeUsers),
	}
}

func newChmod(a *app, o owned) *cobra.Command {
	meaning := "r looks, w sends, rw receives"
	if o.thing == "ring" {
		meaning = "r consumes, w produces, rw consumes lossless"
	}
	return &cobra.Command{
		Use:   "chmod MODE " + strings.ToUpper(o.thing) + "...",
		Short: "Change who may use " + o.thing + "s: " + meaning,
		Long: fmt.Sprintf(`Change the permission bits of %ss, for the owner (u), the group (g) and others (o): %s; x means
nothing.

MODE is octal, as in 0660, or symbolic as chmod(1) takes it: one or more of u, g, o and a (all), then +, - or = and the
bits, several of these separated by commas. Without u, g, o or a all are meant, whatever the umask. What begins with -
goes behind --, as in chmod -- -r, or write a-r.`, o.thing, meaning),
		Example: fmt.Sprintf("  %[1]s chmod 0660 %[2]s\n  %[1]s chmod u+rw,g=r,o-rwx %[2]s %[3]s\n  %[1]s chmod g=u %[2]s", o.command, o.example[0], o.example[1]),
		Args:    o.wordAndNames("a mode"),
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			change, err := parseModeChange(args[0])
			if err != nil {
				return err
			}
			return a.own(ctx, o, args[1:], func(c *client.Client, name string) (ownership, error) {
				if change.absolute {
					return ownership{mode: new(change.of(0))}, nil
				}
				now, err := o.get(c, ctx, name)
				return ownership{mode: new(change.of(value(now.mode)))}, err
			}, func(now ownership) string { return "has mode " + modeText(value(now.mode)) })
		}),
		ValidArgsFunction: o.completeNames(cobra.NoFileCompletions),
	}
}

// own changes the ownership of each of names to what to says, and tells what it is then.
func (a *app) own(ctx context.Context, o owned, names []string, to func(c *client.Client, name string) (ownership, error), tell func(ownership) string) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	one := func(ctx context.Context, a *app, name string) error {
		change, err := to(c, name)
		if err == nil {
			change, err = o.set(c, ctx, name, change)
		}
		if err != nil {
			return o.mistaken(ctx, c, name, err)
		}
		a.say("%s %s", escapeLine(name), tell(change))
		return nil
	}
	if o.patterns {
		return a.eachNamed(ctx, names, one)
	}
	return a.each(ctx, names, func(arg string) error { return one(ctx, a, queueName(arg)) })
}

// mistaken returns err with a hint if there is no queue of that name, but a ring, or the reverse.
func (o *owned) mistaken(ctx context.Context, c *client.Client, name string, err error) error {
	var e *client.Error
	if !errors.As(err, &e) {
		return err
	}
	plain, hint := *e, ""
	switch {
	case errors.Is(err, client.ErrQueueNotFound):
		plain.Message = "there is no such queue"
		if _, ringErr := c.GetRing(ctx, name); ringErr == nil {
			hint = "; there is a ring of this name: ipcctl ring chown, ipcctl ring chmod"
		}
	case errors.Is(err, client.ErrRingNotFound):
		plain.Message = "there is no such ring"
		if _, queueErr := c.GetQueue(ctx, name); queueErr == nil {
			hint = "; there is a queue of this name: ipcctl chown, ipcctl chmod"
		}
	default:
		return err
	}
	plain.Message += hint
	return &plain
}

// parseOwner reads USER, USER:GROUP, USER: (with the user's login group) or :GROUP, as chown(1) does.
func parseOwner(s string) (ownership, error) {
	var o ownership
	userPart, groupPart, hasGroup := strings.Cut(s, ":")
	if userPart == "" && groupPart == "" {
		return o, usagef("%s is no owner: write USER, USER:GROUP, USER: or :GROUP", quoteArg(s))
	}
	if userPart != "" {
		uid, err := lookupUID(userPart)
		if err != nil {
			return o, usagef("%v", err)
		}
		o.uid = &uid
	}
	if hasGroup {
		gid, err := groupOf(userPart, groupPart)
		if err != nil {
			return o, usagef("%v", err)
		}
		o.gid = &gid
	}
	return o, nil
}

// groupOf returns the gid of a group, or if it is "" that of the user's login group.
func groupOf(owner, group string) (uint32, error) {
	if group != "" {
		return lookupGID(group)
	}
	found, err := user.Lookup(owner)
	if _, notNumber := strconv.ParseUint(owner, 10, 32); notNumber == nil {
		found, err = user.LookupId(owner)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: this host does not know the user's login group: name a group", quoteArg(owner))
	}
	return lookupGID(found.Gid)
}

// modeChange is what chmod does to permission bits.
type modeChange struct {
	absolute bool // it does not depend on what they are
	steps    []modeStep
}

type modeStep struct {
	who  uint32 // a mask of the classes that change, such as 0770
	op   byte   // + - =
	bits uint32 // of one class: 4 r, 2 w, 1 x
	from uint32 // else the shift of the class whose bits are copied, plus one
}

func (m modeChange) of(mode uint32) uint32 {
	for _, s := range m.steps {
		bits := s.bits
		if s.from > 0 {
			bits = mode >> (s.from - 1) & 7
		}
		bits = bits * 0o111 & s.who // in every class that changes
		switch s.op {
		case '+':
			mode |= bits
		case '-':
			mode &^= bits
		default:
			mode = mode&^s.who | bits
		}
	}
	return mode
}

var modeClasses = map[byte]uint32{'u': 0o700, 'g': 0o070, 'o': 0o007, 'a': 0o777}
var modeShifts = map[byte]uint32{'u': 7, 'g': 4, 'o': 1}
var modeBits = map[byte]uint32{'r': 4, 'w': 2, 'x': 1}

// parseModeChange reads an octal mode, or a symbolic one as of chmod(1) with the letters r, w and x.
func parseModeChange(s string) (modeChange, error) {
	if s != "" && '0' <= s[0] && s[0] <= '9' {
		mode, err := parseMode(s)
		if err != nil {
			return modeChange{}, usagef("%v", err)
		}
		change := modeChange{absolute: true}
		for class, shift := range modeShifts {
			change.steps = append(change.steps, modeStep{who: modeClasses[class], op: '=', bits: mode >> (shift - 1) & 7})
		}
		return change, nil
	}
	var change modeChange
	for clause := range strings.SplitSeq(s, ",") {
		steps, ok := parseModeClause(clause)
		if !ok {
			return modeChange{}, usagef("%s is no mode: write permission bits in octal, such as 0660, or changes such as %s", quoteArg(s), strconv.Quote("u+rw,g=r,o-rwx"))
		}
		change.steps = append(change.steps, steps...)
	}
	return change, nil
}

// parseModeClause reads [ugoa]*([+-=]([rwx]*|[ugo]))+.
func parseModeClause(s string) (steps []modeStep, ok bool) {
	who := uint32(0)
	for s != "" && modeClasses[s[0]] != 0 {
		who, s = who|modeClasses[s[0]], s[1:]
	}
	if who == 0 {
		who = 0o777
	}
	for s != "" {
		step := modeStep{who: who, op: s[0]}
		if !strings.ContainsRune("+-=", rune(step.op)) {
			return nil, false
		}
		if s = s[1:]; s != "" && modeShifts[s[0]] != 0 {
			step.from, s = modeShifts[s[0]], s[1:]
		} else {
			for s != "" && modeBits[s[0]] != 0 {
				step.bits, s = step.bits|modeBits[s[0]], s[1:]
			}
		}
		steps = append(steps, step)
	}
	return steps, len(steps) > 0
}
