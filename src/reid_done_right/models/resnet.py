"""Residual networks of any width in torchvision's layout, so that its published state dicts load unchanged."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from reid_done_right.models.backbone import Backbone, conv_norm
from reid_done_right.models.padding import halve, zero_


class Shortcut(nn.Sequential):
    """The projection shortcut of a block whose input and output differ in shape."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out, H / stride, W / stride)."""
        conv, norm = self
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        return conv_norm(conv, norm, maps)


def shortcut(channels: int, out: int, stride: int) -> Shortcut | None:
    """Return a block's projection, or None if its input and output have one shape."""
    return None if stride == 1 and channels == out else Shortcut(channels, out, stride)


class Basic(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (ResNet-18, 34). The padding is zero in its input and output."""

    expansion = 1

    def __init__(self, channels: int, planes: int, inner: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, planes, 3, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(channels, planes, stride)

    def forward(self, maps: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (B, channels, H, W) to (B, planes, H / stride, W / stride), and the mask alike."""
        mask = mask if self.conv1.stride == (1, 1) else halve(mask)
        short = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu(zero_(conv_norm(self.conv1, self.bn1, maps), mask), inplace=True)
        return F.relu(zero_(conv_norm(self.conv2, self.bn2, maps).add_(short), mask), inplace=True), mask


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1 convolutions and a shortcut (ResNet-50, 101, 152, ResNeXt)."""

    expansion = 4

    def __init__(self, channels: int, planes: int, inner: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = shortcut(channels, 4 * planes, stride)

    def forward(self, maps: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (B, channels, H, W) to (B, 4 planes, H / stride, W / stride), and the mask alike."""
        short = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu(zero_(conv_norm(self.conv1, self.bn1, maps), mask), inplace=True)
        maps = F.relu(conv_norm(self.conv2, self.bn2, maps), inplace=True)
        mask = mask if self.conv2.stride == (1, 1) else halve(mask)
        return F.relu(conv_norm(self.conv3, self.bn3, maps).add_(short), inplace=True), mask


BLOCKS: dict[str, type[Basic] | type[Bottleneck]] = {"basic": Basic, "bottleneck": Bottleneck}


class ResNet(Backbone):
    """ResNet and ResNeXt: (B, 3, H, W) -> (B, F, H/32, W/32), sides rounded up (H/16 with last_stride 1).

    width is the number of channels of the first stage (64 in the published networks); F = 8 width for basic blocks,
    32 width for bottlenecks. groups and width_per_group make ResNeXt (32 and 4 in ResNeXt-50, 32 and 8 in 101).
    """

    def __init__(
        self,
        block: str,
        blocks: Sequence[int],
        width: int = 64,
        last_stride: int = 2,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        kind = BLOCKS[block]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages = []
        self.channels = width
        for stage, depth in enumerate(blocks):
            planes = width * 2**stage
            inner = planes * width_per_group // 64 * groups
            layers = []
            for number in range(depth):
                stride = (1, 2, 2, last_stride)[stage] if number == 0 else 1
                layers.append(kind(self.channels, planes, inner, stride, groups))
                self.channels = planes * kind.expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # there it draws nothing, in seconds
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map normalised images (B, 3, H, W) to feature maps (B, F, h, w), and their mask to that of the maps."""
        mask = halve(mask)
        maps = F.relu(zero_(conv_norm(self.conv1, self.bn1, images), mask), inplace=True)
        maps = F.max_pool2d(maps, 3, stride=2, padding=1)  # after a ReLU, 0 serves as -inf in the padding
        mask = halve(mask)
        if isinstance(self.layer1[0], Basic):
            maps = zero_(maps, mask)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                maps, mask = block(maps, mask)
        return maps, mask
