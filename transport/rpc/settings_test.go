package rpc

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// unusual has a value other than the default in every field.
func unusual() queue.Settings {
	return queue.Settings{
		MaxMessages: 1, MaxBytes: 2, MaxMessageSize: 3, Lease: 4 * time.Second, MaxAttempts: 5, DeadLetter: "/dead", DeadLetterExpired: true,
		Overflow: queue.DropOldest, Durability: queue.Journal, BackoffInitial: 6, BackoffMax: 7, DedupWindow: 8, MaxDedupIDs: 9,
		TypeNames: map[string]int64{"created": 7},
		Kernel: queue.KernelQueue{Mode: queue.KernelBoth, MaxMessages: 11, MessageSize: 12, Type: 13, TypePrefix: true,
			OutSelector: queue.Selector{Kind: queue.TypeIn, Types: []int64{1, 2}}},
		Mode: 0o640, OwnerUID: 14, GroupGID: 15,
		Binds: []queue.Bind{{To: "/a", Skip: true}, {To: "/b", Selector: queue.Selector{Kind: queue.TypeIsNot, Type: 16}}},
	}
}

func TestSettingsSurviveTheWay(t *testing.T) {
	want := unusual()
	var got queue.Settings
	h := serve(t, &fakeBroker{create: func(_ identity.Identity, name string, edit broker.Edit, exclusive bool) (broker.Info, bool, error) {
		got = queue.Default(1, 2)
		got.Durability = queue.Memory
		err := edit(&got)
		return broker.Info{Name: name, Settings: got}, exclusive, err
	}})
	r, err := h.admin.CreateQueue(t.Context(), &ipcdv1.CreateQueueRequest{Name: "/q", Settings: encodeSettings(&want), Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !r.Created || r.Queue.Name != "/q" || r.Queue.Settings.Overflow != ipcdv1.OverflowPolicy_OVERFLOW_POLICY_DROP_OLDEST || r.Queue.Settings.GetMode() != 0o640 {
		t.Errorf("answer %v", r)
	}
}

func TestUnsetSettingsTakeTheDefault(t *testing.T) {
	for _, unset := range []*ipcdv1.QueueSettings{nil, {}, {Backoff: &ipcdv1.Backoff{}, Mqueue: &ipcdv1.KernelQueue{}}} {
		got, want := queue.Default(1, 2), queue.Default(1, 2)
		if err := createEdit(unset)(&got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v changed the defaults to %+v", unset, got)
		}
	}
}

func TestEverySettingOfTheSchemaIsKnown(t *testing.T) {
	var paths func(prefix string, fields protoreflect.FieldDescriptors) []string
	paths = func(prefix string, fields protoreflect.FieldDescriptors) (all []string) {
		for i := range fields.Len() {
			f := fields.Get(i)
			name := prefix + string(f.Name())
			all = append(all, name)
			if m := f.Message(); m != nil && !f.IsMap() && (m.Name() == "Backoff" || m.Name() == "KernelQueue") {
				all = append(all, paths(name+".", m.Fields())...)
			}
		}
		return all
	}
	want := paths("", new(ipcdv1.QueueSettings).ProtoReflect().Descriptor().Fields())
	got := settingsFields.paths()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("settings %q\nschema   %q", got, want)
	}
}

func TestUpdateChangesWhatTheMaskNames(t *testing.T) {
	all := unusual()
	for _, path := range settingsFields.paths() {
		edit, err := updateEdit(encodeSettings(&all), &fieldmaskpb.FieldMask{Paths: []string{path}}, identity.Identity{})
		if err != nil {
			t.Fatal(err)
		}
		before := queue.Default(1, 2)
		before.Durability = queue.Memory
		got := before
		if err := edit(&got); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		// Taking all else back to what it was must leave nothing but the named fields.
		var changed []string
		for _, f := range settingsFields {
			probe := before
			if _, err := f.take(&probe, encodeSettings(&got)); err != nil {
				t.Fatal(err)
			}
			if f.path == "type_names" {
				probe.TypeNames = got.TypeNames
			}
			if f.path == "mqueue.type_prefix" {
				probe.Kernel.TypePrefix = got.Kernel.TypePrefix
			}
			if !reflect.DeepEqual(probe, before) {
				changed = append(changed, f.path)
			}
		}
		for _, c := range changed {
			if c != path && !strings.HasPrefix(c, path+".") {
				t.Errorf("a mask of %s changed %s", path, c)
			}
		}
		if len(changed) == 0 {
			t.Errorf("a mask of %s changed nothing", path)
		}
	}
}

func TestAFieldThatIsNamedAndUnsetReturnsToItsDefault(t *testing.T) {
	var paths []string
	for _, f := range settingsFields {
		if f.reset != nil {
			paths = append(paths, f.path)
		}
	}
	edit, err := updateEdit(nil, &fieldmaskpb.FieldMask{Paths: paths}, identity.Identity{UID: 77, GID: 78})
	if err != nil {
		t.Fatal(err)
	}
	got, want := unusual(), queue.Default(14, 15) // who owns it stays
	if err := edit(&got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestUpdateRefusesWhatMakesNoSense(t *testing.T) {
	h := serve(t, &fakeBroker{update: func(_ string, edit broker.Edit) (broker.Info, error) {
		s := queue.Default(0, 0)
		return broker.Info{}, edit(&s)
	}})
	lease := &ipcdv1.QueueSettings{Lease: seconds(10)}
	for name, test := range map[string]struct {
		settings *ipcdv1.QueueSettings
		mask     []string
		field    string
		say      string
	}{
		"no mask":          {lease, nil, "update_mask", "empty"},
		"unknown":          {lease, []string{"lease", "leas"}, "update_mask", "backoff.initial"},
		"part of a word":   {lease, []string{"back"}, "update_mask", "no setting"},
		"below a leaf":     {lease, []string{"type_names.created"}, "update_mask", "no setting"},
		"everything":       {lease, []string{"*"}, "update_mask", "no setting"},
		"owner":            {lease, []string{"owner_uid"}, "settings.owner_uid", "has no default"},
		"group":            {nil, []string{"group_gid"}, "settings.group_gid", "has no default"},
		"overflow":         {&ipcdv1.QueueSettings{Overflow: 4}, []string{"overflow"}, "settings.overflow", "DROP_OLDEST (3)"},
		"negative enum":    {&ipcdv1.QueueSettings{Durability: -1}, []string{"durability"}, "settings.durability", "MEMORY (2)"},
		"mqueue mode":      {&ipcdv1.QueueSettings{Mqueue: &ipcdv1.KernelQueue{Mode: 6}}, []string{"mqueue"}, "settings.mqueue.mode", "NONE (5)"},
		"huge number":      {&ipcdv1.QueueSettings{MaxMessages: new(uint64(math.MaxUint64))}, []string{"max_messages"}, "settings.max_messages", "at most"},
		"huge bytes":       {&ipcdv1.QueueSettings{MaxMessageSize: new(uint64(math.MaxUint64))}, []string{"max_message_size"}, "settings.max_message_size", "at most"},
		"invalid duration": {&ipcdv1.QueueSettings{Lease: &durationpb.Duration{Seconds: 1, Nanos: -1}}, []string{"lease"}, "settings.lease", "valid duration"},
		"endless backoff":  {&ipcdv1.QueueSettings{Backoff: &ipcdv1.Backoff{Max: seconds(math.MaxInt64)}}, []string{"backoff"}, "settings.backoff.max", "it must be"},
		"bind overflow":    {&ipcdv1.QueueSettings{Binds: []*ipcdv1.Bind{{Destination: "/b", Overflow: 3}}}, []string{"binds"}, "settings.binds.overflow", "SKIP (2)"},
		"bind selector":    {&ipcdv1.QueueSettings{Binds: []*ipcdv1.Bind{{Destination: "/b", Selector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_Type{}}}}}, []string{"binds"}, "settings.binds.selector", "/b"},
		"many binds":       {&ipcdv1.QueueSettings{Binds: make([]*ipcdv1.Bind, 100_000)}, []string{"binds"}, "settings.binds", "a queue may have 64"},
		"selector":         {&ipcdv1.QueueSettings{Mqueue: &ipcdv1.KernelQueue{OutSelector: &ipcdv1.Selector{Kind: &ipcdv1.Selector_Type{}}}}, []string{"mqueue"}, "selector", "positive"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.admin.UpdateQueue(t.Context(), &ipcdv1.UpdateQueueRequest{Name: "/q", Settings: test.settings, UpdateMask: &fieldmaskpb.FieldMask{Paths: test.mask}})
			if s := wantInvalid(t, err, test.field); !strings.Contains(s.Message(), test.say) {
				t.Errorf("message %q, want %q in it", s.Message(), test.say)
			}
		})
	}
}
