"""Can training start on this machine, and if not, what to do?"""
