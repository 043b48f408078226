"""Stand-ins for the phone: they run artifacts as a phone does, without a phone.

`standins` is their registry. Each runs its graphs in a child process (`child`), which loads them with the runners that
users get (`worker`); `judge` opens one and judges a bundle there. `ml_drift`, `xnnpack_half` and `tensorflow_lite` are
engines that run inside, `compiled` is what two of them share. tools/ installs stand-ins from the package registries,
into a folder that the user chooses; `stamp` finds them there. `report` and `judge_report` are about real phones.
"""
