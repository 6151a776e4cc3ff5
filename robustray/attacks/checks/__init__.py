"""Whether a judgement means anything: what is looked for, and how it is told."""
