"""What surrogates are made of: surnames, given-name characters, and places, hospitals and firms that do not exist.

Place names join two characters of herbs and landscape (芷川, 苓原), which hardly any real place does. Two originals
never share a surrogate (ledger.py); these lists only decide how natural it looks.
"""

from __future__ import annotations

SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜"
    "范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛"
    "伍韦申尤毕聂焦向柳邢路岳齐梅莫庄辛管祝左涂谷祁时舒耿牟卜詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单"
    "包司柏宁柯阮桂闵解强柴华车冉房边辜吉饶刁瞿戚丘古米池滕晋苑邬臧畅宫来苟全褚廉简娄盖符奚木穆党燕郎邸冀"
)
COMPOUND = (
    "欧阳 上官 司马 诸葛 东方 皇甫 尉迟 公孙 慕容 令狐 宇文 长孙 司徒 夏侯 南宫 端木 百里 呼延 轩辕 闻人 澹台 公冶 "
    "濮阳 淳于 单于 申屠 太史 钟离 赫连 独孤"
).split()
MALE = (
    "伟强磊军洋勇杰涛超明刚平辉鹏华飞鑫波斌宇浩凯健俊帆帅旭宁龙林欢阳建亮成栋楠坤鸿文武国庆志远博轩晨子昊然泽宏达兴福德义仁"
    "忠孝信诚永康安邦振海江河山川岩峰岭松柏森桐槐根才良贤哲睿智翔腾云雷霆震光耀炎烽锋钢铁钧铭锐立毅恒坚铮骏驰骁威雄彪胜利全"
    "有金银玉璋瑞祥吉顺和谐同方正大东南西北春秋冬夏生来喜乐友善维绍继承祖宗先启发展新少青"
)
FEMALE = (
    "芳娟敏静丽艳娜秀英霞玲桂兰红梅燕萍丹雪琴慧莉倩颖婷玉华洁云莹琳晶欣佳怡雯婉蓉薇蕾莲荷菊菲茜茹芸芬芝苗苑若萌萱葵蓓蕊薰露"
    "霜冰月虹彩霓岚晴晓曦晨昕暖柔媛媚妍妙姣娇姗娴娥婵嫣嫦凤凰鹃莺雁琪琼瑶瑾瑜璐璇珍珠珊瑚翠碧黛素絮纯绮绣锦缨思念忆惠淑贞"
    "巧灵秋冬春夏香甜美好爱心可依伊亚小桃杏梨樱榕柳楚凡音韵诗书画文真宁安平竹青"
)
MINORITY = (
    "阿艾巴贝布达迪多尔法丰戈古哈海赫加江杰卡康克库拉勒里玛麦曼米莫木穆"
    "娜纳尼努帕普其恰热仁日萨赛沙苏索塔泰提吐图瓦西夏谢雅亚依伊尤扎泽卓"
)
FEMALE_SIGNS = frozenset(
    "芳娟丽艳娜霞玲兰梅燕萍雪琴莉倩颖婷莹琳雯蓉薇莲荷菊菲茹芸芬芝萱蕾媛妍姣娇姗娴娥婵嫣凤鹃琪瑶珍珊翠淑贞香妹姐姑妮婷"
)
MALE_SIGNS = frozenset(
    "伟强磊军勇杰涛超刚辉鹏飞斌浩凯健俊帅龙栋坤鸿武国志博轩昊泽宏兴福德义忠永振海山峰松森根才贤哲翔雷锋钢铁铭毅雄彪胜祥"
)
LATIN = (
    "an bai bo chen da fei gang hai han hong jia jian jing jun kai lan lei li "
    "lin ling long mei min ming na ning peng ping qi qing "
    "rong rui shan shu song tao tian ting wei wen xia xin xue yan yang yi ying yu yuan yun zhen zhi zhou zi"
).split()
HERBS = "杏橘芷苓芎荆芍桔蒲菖艾薄黄葛蒿茜蔻萸菟茯葵蘅萱藿薏茵栀柏楝檀枳棠榆槐桐檵椿楸梓桑楮槲菘苕莳荇藜荻芡茭"
LAND = "原川溪陵泽渚汀坪岗坞塘湾浦埠港洲泉涧壑麓坂畈垅堰渡津梁阜丘峪岚岫峡澜漪浔淙沚湄洄"
HOSPITAL_WORDS = (
    "人民 中心 中医 中西医结合 妇幼保健 妇女儿童 儿童 肿瘤 胸科 口腔 眼科 精神卫生 "
    "精神病 传染病 骨科 肛肠 皮肤病 康复 老年病 "
    "医学院 医科大学 大学 附属 综合 协和 职工 矿务局 铁路 红十字 社区 示教"
).split()
HOSPITAL_TAIL = (
    "妇幼保健院 社区卫生服务中心 社区卫生服务站 体检中心 医疗中心 急救中心 疾控中心 卫生院 "
    "卫生所 卫生室 保健院 疗养院 门诊部 诊所 医院 分院 院区"
).split()
EMPLOYER_TAIL = (
    "股份有限公司 有限责任公司 有限公司 集团公司 分公司 集团 公司 幼儿园 小学 中学 高中 "
    "技校 学校 职业学院 学院 大学 研究所 研究院 设计院 "
    "派出所 公安局 税务局 教育局 管理局 局 法院 检察院 银行 支行 信用社 村委会 居委会 "
    "街道办 办事处 合作社 商店 超市 饭店 酒店 宾馆 "
    "电厂 钢厂 工厂 厂 矿 农场 林场 车队 车间 工地 部队 加油站 服务站 站 中心 店 厅 院 社"
).split()
FIRM_WORDS = (
    "恒兴 嘉禾 同泰 永昌 瑞丰 广源 德盛 和顺 聚鑫 长青 万通 天成 宏业 华茂 金穗 安达 联创 正大 博雅 新元".split()
)
