package sweep

import (
	"cmp"
	"fmt"
	"strings"
)

// ShortName is the abbreviation of a setting or axis on lines that name a point:
// "bs" for batch_size. What has none keeps its name.
func ShortName(name string) string {
	return cmp.Or(settingOf(name).short, name)
}

// settingOf is a setting by its name; one without a name where there is none.
func settingOf(name string) *setting {
	for _, s := range settings() {
		if s.name == name {
			return s
		}
	}
	return &setting{}
}

// ShortModels abbreviates model names: without their owners, where that leaves no
// two alike.
func ShortModels(names []string) map[string]string {
	short, owner := make(map[string]string, len(names)), map[string]string{}
	for _, name := range names {
		leaf := name[strings.LastIndexByte(name, '/')+1:]
		if other, taken := owner[leaf]; taken && other != name || leaf == "" {
			short[other], short[name] = other, name
			continue
		}
		owner[leaf], short[name] = name, leaf
	}
	return short
}

// Labels name the profiles of a sweep by what varies in it, and by nothing else.
type Labels struct {
	Varies []string          // axes with more than one value, in source order
	Models map[string]string // of the plan, as they are abbreviated
	key    map[string]string // of an axis of objects: the key that tells them apart; "": all of them
	short  map[string]string // of axes and keys
}

// LabelsOf are the labels of each sweep of a plan, by its name.
func LabelsOf(p *Plan) map[string]*Labels {
	var names []string
	for _, s := range p.Sweeps {
		for _, profile := range s.Profiles {
			names = append(names, profile.Settings.Model)
		}
	}
	models, out := ShortModels(names), map[string]*Labels{}
	for _, s := range p.Sweeps {
		l := &Labels{Models: models, key: map[string]string{}, short: map[string]string{}}
		for _, axis := range s.Axes {
			if values := valuesOf(s, axis.Name); len(values) > 1 {
				l.Varies = append(l.Varies, axis.Name)
				key := tellingKey(values)
				l.key[axis.Name] = key
				l.short[axis.Name], l.short[key] = ShortName(axis.Name), ShortName(key)
			}
		}
		out[s.Name] = l
	}
	return out
}

// valuesOf are the different values of an axis among the profiles of a sweep.
func valuesOf(s *Sweep, axis string) []any {
	var values []any
	seen := map[string]bool{}
	for _, p := range s.Profiles {
		v := p.axis(axis)
		if key := string(encode(nil, v)); !seen[key] {
			seen[key], values = true, append(values, v)
		}
	}
	return values
}

// axis is the value of an axis at the profile's point; nil where it has none.
func (p *Profile) axis(name string) any {
	for i := range p.Axes {
		if p.Axes[i].Axis == name {
			return p.Axes[i].Value
		}
	}
	return nil
}

// tellingKey is a key of objects whose values are all different: one that names no
// setting (a label), else the first; "" where there is none, or values are no objects.
func tellingKey(values []any) (found string) {
	first, _ := values[0].(map[string]any)
	for _, key := range sortedKeys(first) {
		seen := map[string]bool{}
		for _, v := range values {
			if object, ok := v.(map[string]any); ok && object[key] != nil {
				seen[fmt.Sprint(object[key])] = true
			}
		}
		if len(seen) < len(values) {
			continue
		}
		if settingOf(key).name == "" {
			return key
		}
		found = cmp.Or(found, key)
	}
	return found
}

// Of names a profile: "Qwen3-8B kv=fp8 bs=32". Where nothing varies it is the model.
func (l *Labels) Of(p *Profile) string {
	var words []string
	for _, axis := range l.Varies {
		name, value := l.Axis(axis, p)
		if name != "model" {
			value = name + "=" + value
		}
		words = append(words, value)
	}
	if len(words) == 0 {
		return l.Models[p.Settings.Model]
	}
	return strings.Join(words, " ")
}

// Axis is what an axis that varies is called, shortly, and its value at a profile's
// point; of an axis of objects, those of the key that tells them apart.
func (l *Labels) Axis(axis string, p *Profile) (name, value string) {
	v := p.axis(axis)
	if object, ok := v.(map[string]any); ok && l.key[axis] != "" {
		axis, v = l.key[axis], object[l.key[axis]]
	}
	if axis == "model" {
		return axis, cmp.Or(l.Models[fmt.Sprint(v)], Show(v))
	}
	return l.short[axis], Show(v)
}

// Show writes a value as a sweep file has it, a text that needs no quotes without.
func Show(v any) string {
	if text, ok := v.(string); ok && text != "" && !strings.ContainsAny(text, " \t\r\n\"") {
		return text
	}
	return show(v)
}
