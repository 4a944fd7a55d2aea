package config

import "reflect"

// Changes returns the outermost keys whose values differ: those that a reload puts in force, and those that count from
// the next start on. Files of TLS are compared by name: they may have changed even if nothing is returned. Turning TLS on
// or off is a change of tls like others here, but a socket that listens stays what it is.
func Changes(old, now *Config) (live, restart []string) {
	for i := range Keys {
		k := &Keys[i]
		a, b := reflect.ValueOf(k.at(&place{config: old})).Elem(), reflect.ValueOf(k.at(&place{config: now})).Elem()
		if same(a, b) {
			continue
		}
		if k.Live {
			live = append(live, k.Name)
		} else {
			restart = append(restart, k.Name)
		}
	}
	return live, restart
}

// same compares values, and takes an empty list or map for none.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Slice, reflect.Map:
		if a.Len() == 0 && b.Len() == 0 {
			return true
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
