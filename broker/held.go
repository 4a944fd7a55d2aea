package broker

import (
	"maps"
	"slices"

	"github.com/ipcd/ipcd/broker/queue"
)

// held is the unsettled deliveries of a consumer by tag. Tags rise, so they are kept in pages: little
// work and memory where most are settled in order, and none kept for those that were.
type held struct {
	pages map[uint64]*heldPage
	live  uint64
	last  *heldPage // that was used last
}

const heldPageTags = 64

type heldPage struct {
	key      uint64
	receipts [heldPageTags]queue.Receipt // zero: not held
	live     int
}

func (h *held) page(tag uint64) *heldPage {
	key := tag / heldPageTags
	if h.last == nil || h.last.key != key {
		p := h.pages[key]
		if p == nil {
			return nil
		}
		h.last = p
	}
	return h.last
}

func (h *held) add(tag uint64, r queue.Receipt) {
	p := h.page(tag)
	if p == nil {
		if h.pages == nil {
			h.pages = map[uint64]*heldPage{}
		}
		p = &heldPage{key: tag / heldPageTags}
		h.pages[p.key] = p
		h.last = p
	}
	p.receipts[tag%heldPageTags] = r
	p.live++
	h.live++
}

func (h *held) get(tag uint64) (queue.Receipt, bool) {
	p := h.page(tag)
	if p == nil {
		return queue.Receipt{}, false
	}
	r := p.receipts[tag%heldPageTags]
	return r, r != queue.Receipt{}
}

func (h *held) remove(tag uint64) {
	p := h.page(tag)
	p.receipts[tag%heldPageTags] = queue.Receipt{}
	p.live--
	h.live--
	if p.live == 0 {
		delete(h.pages, p.key)
		h.last = nil
	}
}

// each visits what is held, by tag.
func (h *held) each(visit func(tag uint64, r queue.Receipt)) {
	for _, key := range slices.Sorted(maps.Keys(h.pages)) {
		for i, r := range h.pages[key].receipts {
			if r != (queue.Receipt{}) {
				visit(key*heldPageTags+uint64(i), r)
			}
		}
	}
}
