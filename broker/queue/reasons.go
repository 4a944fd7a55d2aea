package queue

// reasons are the texts of buried messages, each kept once.
type reasons struct {
	byText map[string]uint32
	all    []reasonText // by number; 0 is unused
	vacant []uint32
	bytes  int64 // of the texts
}

type reasonText struct {
	text string
	refs int
}

func (r *reasons) hold(text string) uint32 {
	if r.byText == nil {
		r.byText = map[string]uint32{}
		r.all = make([]reasonText, 1)
	}
	number, ok := r.byText[text]
	if !ok {
		if last := len(r.vacant) - 1; last >= 0 {
			number = r.vacant[last]
			r.vacant = r.vacant[:last]
		} else {
			number = uint32(len(r.all))
			r.all = append(r.all, reasonText{})
		}
		r.all[number].text = text
		r.byText[text] = number
		r.bytes += int64(len(text))
	}
	r.all[number].refs++
	return number
}

func (r *reasons) release(number uint32) {
	if number == 0 {
		return
	}
	t := &r.all[number]
	t.refs--
	if t.refs == 0 {
		delete(r.byText, t.text)
		r.bytes -= int64(len(t.text))
		*t = reasonText{}
		r.vacant = append(r.vacant, number)
	}
}

// ReasonBytes is what the reasons of buried messages take in memory, each text once.
func (q *Queue) ReasonBytes() int64 { return q.reasons.bytes }
