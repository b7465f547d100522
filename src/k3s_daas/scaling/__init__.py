"""How many workers a fleet wants: `decide` is pure, `demand` counts pods, `journal` remembers."""
