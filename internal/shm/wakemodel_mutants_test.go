package shm_test

import "testing"

// Each of these breaks the protocol in one place, and the model must find a way in which that loses a wake-up. -v prints it.

var (
	plainScenario   = scenario{name: "one producer, one consumer", messages: [2]uint8{3}, consumers: 1, spurious: 1}
	joinScenario    = scenario{name: "a consumer joins", messages: [2]uint8{3}, consumers: 1, late: "c0", spurious: 1}
	laneScenario    = scenario{name: "a producer joins", messages: [2]uint8{1, 1}, consumers: 1, late: "p1"}
	offerScenario   = scenario{name: "a producer joins", messages: [2]uint8{0, 1}, consumers: 1, late: "p1"}
	restartScenario = scenario{name: "the daemon was restarted, and a consumer joined before a producer was back", messages: [2]uint8{1},
		consumers: 1, restarted: true}
	deathScenario   = scenario{name: "a producer dies", messages: [2]uint8{2}, consumers: 1, dies: "p0"}
	replaceScenario = scenario{name: "a consumer dies and another takes its slot", messages: [2]uint8{3}, consumers: 2,
		late: "c1", dies: "c0", replaced: true}
	losslessScenario = scenario{name: "lossless", messages: [2]uint8{3}, consumers: 1, capacity: 1, spurious: 1}
	leaveScenario    = scenario{name: "lossless, a consumer dies", messages: [2]uint8{3}, consumers: 1, dies: "c0", capacity: 1}
)

func TestWakeModelFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name     string
		scenario scenario
		variant  variant
	}{
		{"epoch loaded before published", joinScenario, variant{
			publishing: []string{"load epoch", "published", "look at parked", "wake+1", "FUTEX_WAKE", "fetch members"}}},
		{"parked looked at before published", plainScenario, variant{
			publishing: []string{"look at parked", "published", "load epoch", "wake+1", "FUTEX_WAKE", "fetch members"}}},
		{"FUTEX_WAKE without wake+1", plainScenario, variant{
			publishing: []string{"published", "load epoch", "look at parked", "FUTEX_WAKE", "fetch members"}}},
		{"wake+1 after FUTEX_WAKE", plainScenario, variant{
			publishing: []string{"published", "load epoch", "look at parked", "FUTEX_WAKE", "wake+1", "fetch members"}}},
		{"no wake for those not mapped yet", joinScenario, variant{quietEpoch: true}},
		{"the generation remembered is what parked shows after the wake", plainScenario, variant{
			publishing: []string{"published", "load epoch", "look at parked", "wake+1", "FUTEX_WAKE", "note parked", "fetch members"}}},
		{"a consumer just mapped is taken for woken", joinScenario, variant{
			publishing: []string{"published", "load epoch", "look at parked", "wake+1", "FUTEX_WAKE", "fetch members as woken"}}},
		{"the generation remembered is a slot's", replaceScenario, variant{slotGeneration: true}},

		{"parked+1 after the second look", plainScenario, variant{
			parking: []string{"look at epoch", "remember wake words", "look at lanes again", "look at epoch again", "parked+1", "wait", "parked+1 again"}}},
		{"no second look", plainScenario, variant{
			parking: []string{"look at epoch", "remember wake words", "parked+1", "wait", "parked+1 again"}}},
		{"wake words remembered after the second look", plainScenario, variant{
			parking: []string{"look at epoch", "parked+1", "look at lanes again", "look at epoch again", "remember wake words", "wait", "parked+1 again"}}},
		{"wake words remembered after parked+1", plainScenario, variant{
			parking: []string{"look at epoch", "parked+1", "remember wake words", "look at lanes again", "look at epoch again", "wait", "parked+1 again"}}},
		{"epoch remembered after the members were looked at", laneScenario, variant{
			parking: []string{"remember wake words", "parked+1", "look at lanes again", "remember epoch", "wait", "parked+1 again"}}},
		{"waiting again under the old generation", plainScenario, variant{sameGeneration: true}},
		{"private word remembered after the second look", offerScenario, offered.but(func(v *variant) {
			v.parking = []string{"remember epoch", "remember wake words", "parked+1", "look at offers again", "look at epoch again", "look at lanes again",
				"remember private", "wait", "parked+1 again"}
		})},
		{"no second look at offers", offerScenario, offered.but(func(v *variant) {
			v.parking = []string{"remember epoch", "remember private", "remember wake words", "parked+1", "look at epoch again", "look at lanes again",
				"wait", "parked+1 again"}
		})},
		{"no second look at the epoch", offerScenario, offered.but(func(v *variant) {
			v.parking = []string{"remember epoch", "remember private", "remember wake words", "parked+1", "look at offers again", "look at lanes again",
				"wait", "parked+1 again"}
		})},
		{"no second look at the epoch by a blocked producer", leaveScenario, offered.but(func(v *variant) {
			v.makingRoom = []string{"fetch members for room", "adopt", "look at epoch", "look for room", "remember epoch", "remember private",
				"remember room words", "blocked+1",
				"look at offers again", "look for room again", "wait for room", "blocked+1 again"}
		})},

		{"another members page is offered to a producer, and nobody woken", restartScenario, offered.but(func(v *variant) { v.quietOffer = true })},

		{"epoch raised before the members change", laneScenario, variant{
			announcing: []string{"raise epoch", "change members", "FUTEX_WAKE"}}},
		{"the epoch's sleepers are not woken", laneScenario, variant{
			announcing: []string{"change members", "raise epoch"}}},
		{"the epoch's sleepers are woken before it rises", laneScenario, variant{
			announcing: []string{"change members", "FUTEX_WAKE", "raise epoch"}}},
		{"a producer's death is not announced", deathScenario, variant{silentDeath: true}},
		{"a consumer's death is not announced", leaveScenario, variant{silentDeath: true}},

		{"cursor stored after the look at blocked", losslessScenario, variant{
			telling: []string{"look at blocked", "store cursor", "room+1", "FUTEX_WAKE"}}},
		{"a producer's wake without room+1", losslessScenario, variant{
			telling: []string{"store cursor", "look at blocked", "FUTEX_WAKE"}}},
		{"blocked+1 after the second look", losslessScenario, variant{
			makingRoom: []string{"fetch members for room", "look at epoch", "look for room", "remember room words",
				"look for room again", "look at epoch again", "blocked+1", "wait for room", "blocked+1 again"}}},
		{"room words remembered after blocked+1", losslessScenario, variant{
			makingRoom: []string{"fetch members for room", "look at epoch", "look for room", "blocked+1", "remember room words",
				"look for room again", "look at epoch again", "wait for room", "blocked+1 again"}}},
		{"cursor stored only after the consumer has parked", losslessScenario, variant{
			telling: []string{},
			parking: []string{"look at epoch", "remember wake words", "parked+1", "look at lanes again", "look at epoch again", "wait", "parked+1 again",
				"store cursor", "look at blocked", "room+1", "FUTEX_WAKE"}}},
	} {
		t.Run(c.name, func(t *testing.T) { c.scenario.model(&c.variant).mustFail(t) })
	}
}

func TestWakeModelFindsMissingFences(t *testing.T) {
	for _, c := range []struct {
		block    string
		scenario scenario
	}{
		{"published", plainScenario},
		{"parked+1", plainScenario},
		{"store cursor", losslessScenario},
		{"blocked+1", losslessScenario},
	} {
		t.Run(c.block, func(t *testing.T) {
			c.scenario.buffered = true
			c.scenario.model(&variant{plain: []string{c.block}}).mustFail(t)
		})
	}
}

// A producer that notes before the wake which generation it wakes loses nothing: only it looks at the note, and if it
// dies in between, the daemon wakes for it.
func TestWakeModelAllowsNotingBeforeTheWake(t *testing.T) {
	v := variant{publishing: []string{"published", "load epoch", "look at parked", "note woken", "wake+1", "FUTEX_WAKE", "fetch members"}}
	for _, c := range []scenario{plainScenario, joinScenario, deathScenario, replaceScenario} {
		t.Run(c.name, func(t *testing.T) { c.model(&v).mustHold(t) })
	}
}
