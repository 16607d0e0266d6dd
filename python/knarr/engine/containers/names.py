"""Names for containers that were given none: a weather or sea word, and a bird or a fish."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["random_name"]

_FIRST = (
    "amber ardent autumn balmy bold boreal brackish breezy briny bright brisk buoyant calm candid clear coastal "
    "copper coral crisp daring deep dewy drifting dusky eager early ebbing fair fleet floating foamy frosty "
    "gentle gilded glacial gleaming golden grand gusty hale hardy hazy hearty icy ivory jolly keen kind lively "
    "lofty lucid lunar mellow merry mild misty moonlit nimble noble northern open pearly placid polar proud quick "
    "quiet rainy rapid rippling roaming roving rugged salty sandy serene sheltered shining silver sleek snowy "
    "solar steady stormy sturdy summer sunlit swift tidal tranquil upbeat vivid warm wavy western wild windy "
    "wintry wise zesty"
)
_SECOND = (
    "albatross anchovy auk barbel bittern blenny bream brill bunting burbot carp char chub cod cormorant crake "
    "crane curlew dab dace diver dipper dorado dotterel dunlin eel egret eider falcon finch flounder fulmar "
    "gannet garfish godwit goby goshawk grayling grebe grouper guillemot gull gurnard haddock hake halibut "
    "harrier heron herring hoopoe ibis jackdaw kestrel kite kittiwake knot lamprey lapwing lark ling linnet loach "
    "lumpfish mackerel magpie marlin martin merlin minnow mullet nightjar noddy osprey ouzel owl oystercatcher "
    "perch petrel pike pilchard pintail pipit plaice plover pollack pout puffin rail raven redshank roach robin "
    "rook ruff saithe salmon sanderling sardine shag shearwater siskin skate skua smelt snipe sole spoonbill "
    "sprat starling stickleback stint stork sturgeon swallow swan swift teal tench tern thrush trout tuna turbot "
    "turnstone twite wagtail warbler weever whimbrel whiting wigeon wrasse wren zander"
)
FIRST, SECOND = _FIRST.split(), _SECOND.split()


def random_name(taken: Container[str]) -> str:
    """A name that is not taken."""
    for attempt in range(1000):
        name = f"{secrets.choice(FIRST)}_{secrets.choice(SECOND)}"
        if attempt > 3:
            name += str(secrets.randbelow(10 ** min(attempt // 4, 8)))
        if name not in taken:
            return name
    raise RuntimeError("no free name was found in a thousand tries")
