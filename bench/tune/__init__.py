"""Finding the settings that serve a model best: what ``tensorwire tune`` does, but for the talking to people.

:mod:`.points`, :mod:`.search`, :mod:`.ladder` and :mod:`.choice` are pure: settings in, next point out.
:mod:`.session` runs them against a :class:`~.session.Site`. :mod:`.crew` and :mod:`.loader` make the load, in
processes of their own.
"""
