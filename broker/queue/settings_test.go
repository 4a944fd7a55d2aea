package queue

import (
	"reflect"
	"strings"
	"testing"
)

// eachField calls visit for every field of settings in turn, with a copy in which that one was changed.
func eachField(visit func(name string, changed Settings)) {
	var walk func(path []int, name string, v reflect.Value)
	walk = func(path []int, name string, v reflect.Value) {
		for i := range v.NumField() {
			field := v.Type().Field(i)
			at := append(path[:len(path):len(path)], i)
			if field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[Selector]() {
				walk(at, name+field.Name+".", v.Field(i))
				continue
			}
			s := Default(1, 1)
			s.DeadLetter = "/dead" // so that what depends on it may change
			f := reflect.ValueOf(&s).Elem().FieldByIndex(at)
			switch f.Kind() {
			case reflect.Bool:
				f.SetBool(!f.Bool())
			case reflect.String:
				f.SetString("/other")
			case reflect.Slice:
				f.Set(reflect.ValueOf([]Bind{{To: "/copies", Selector: Selector{Kind: TypeIs, Type: 3}, Skip: true}}))
			case reflect.Map:
				f.Set(reflect.ValueOf(map[string]int64{"name": 7}))
			case reflect.Struct:
				f.Set(reflect.ValueOf(Selector{Kind: TypeIn, Types: []int64{3, 4}}))
			case reflect.Uint8:
				f.SetUint(1 - f.Uint())
			case reflect.Uint32:
				f.SetUint(f.Uint() ^ 1)
			default:
				if f.SetInt(f.Int() + 1); field.Name == "BackoffInitial" {
					s.BackoffMax = s.BackoffInitial
				}
			}
			visit(name+field.Name, s)
		}
	}
	walk(nil, "", reflect.ValueOf(Settings{}))
}

func TestDifferenceOfSettingsIsNamed_S1(t *testing.T) {
	base := Default(1, 1)
	base.DeadLetter = "/dead"
	same := base
	want(t, "difference of equals", base.Diff(&same), "")
	eachField(func(name string, changed Settings) {
		if base.Diff(&changed) == "" {
			t.Errorf("a different %s goes unnoticed", name)
		}
	})
	changed := base
	changed.MaxAttempts = 3
	if d := base.Diff(&changed); !strings.Contains(d, "max_attempts") || !strings.Contains(d, "16") || !strings.Contains(d, "3") {
		t.Errorf("difference %q", d)
	}
}

func TestRecordHoldsEverySetting(t *testing.T) {
	eachField(func(name string, changed Settings) {
		if err := changed.Check(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r, err := DecodeRecord((&Record{kind: recConfigure, Number: 1, Settings: &changed}).Append(nil))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(*r.Settings, changed) {
			t.Errorf("%s is lost: %+v", name, *r.Settings)
		}
	})
}
