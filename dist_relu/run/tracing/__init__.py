"""Where the time of a run goes: what workers have marked becomes phases, a timeline, and words."""
